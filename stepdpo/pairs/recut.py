"""Pairs selected anew, by other rules, from trees that were searched before or published; no model is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.types import Problem
from stepdpo.data.rows import BadRow
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Requests, Result
from stepdpo.pairs.tree.files import read_trees
from stepdpo.pairs.tree.pair_selection import PairSelection

SHOWN = 3
"""Rows at fault that an error message shows."""


@dataclass(frozen=True)
class Recut:
    """Pairs of every tree of a file, selected by the rules of `cut`."""

    path: str
    """trees.jsonl of a run, the run's folder, or published rows: a file, a folder or a hub id."""
    cut: PairSelection = field(default_factory=PairSelection)

    needs: ClassVar[frozenset[str]] = frozenset({"trees"})

    def problems(self) -> Iterator[Problem]:
        """The trees, each as a problem under a name of its own; a row that cannot be used as one as well."""
        names: Counter[str] = Counter()
        bad: list[BadRow] = []
        for item in read_trees(self.path):
            if isinstance(item, BadRow):
                if len(bad) < SHOWN:
                    bad.append(item)
                yield Problem(item.place, "", (), meta={"bad": item})
                continue
            # A file may hold several trees of one problem, and the result log tells problems apart by their ids.
            names[item.problem] += 1
            again = f"#{names[item.problem]}" if names[item.problem] > 1 else ""
            yield Problem(item.problem + again, item.question, (item.answer,), meta={"tree": item})
        if not names:
            shown = "".join(f"\n  {row.place}: {row.reason}" for row in bad)
            raise UserError(f"{self.path}: no tree in it{shown}")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Nothing is requested."""
        yield from ()
        if (bad := problem.meta.get("bad")) is not None:
            return Result(outcome="a row that cannot be used", unusable=f"{bad.reason}: {bad.excerpt}")
        counts: Counter[str] = Counter()
        pairs = self.cut(problem.meta["tree"], counts)
        return Result(pairs, "pairs" if pairs else _why_none(counts), counts)


def _why_none(counts: Counter[str]) -> str:
    if not counts["nodes with siblings"]:
        return "no step with an alternative"
    refusals = {name: n for name, n in counts.items() if n and name.startswith("siblings: ")}
    return max(refusals, key=lambda name: refusals[name]) if refusals else "no values"
