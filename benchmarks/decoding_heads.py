"""The value heads of `benchmarks.decoding`: settings, judged by the exact checker on held-out problems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import decoding_runs as runs
from benchmarks.decoding_runs import TASK, Size
from benchmarks.values import MINIATURES, Solution, by_head, by_logps, sampled
from stepdpo.evaluation.statistics import auc
from stepdpo.runtime.atomic_io import read_json, write_json

CELLS = [
    ("optim.lr=3e-4", "dataset.labels=hard", "algo.sft=1"),
    ("optim.lr=1.5e-3", "dataset.labels=hard", "algo.sft=0"),
    ("optim.lr=3e-4", "dataset.labels=soft", "algo.sft=1"),
    ("optim.lr=1e-4", "dataset.labels=hard", "algo.sft=1"),
]
AGGREGATES = ("last", "min")


def heads(folder: Path, size: Size) -> dict[str, Any]:
    """Of every setting the AUC by aggregate, and the best of all, of equal ones the first."""
    judged = _Judged(folder, size.heldout)
    cells: list[dict[str, Any]] = []
    for number, words in enumerate(CELLS[: size.cells]):
        run = runs.head(folder, f"head{number}", size, words)
        cells += [{"run": run.name, "words": list(words), "aggregate": how, **judged(run)[how]} for how in AGGREGATES]
    base = {"run": "base", "words": ["the base's own log-probabilities"], "aggregate": "min", **judged(None)["min"]}
    return {"cells": cells, "chosen": max(cells, key=lambda cell: float(cell["auc"])), "base": base}


class _Judged:
    """How well values tell right beginnings from wrong ones, of solutions to held-out problems, sampled once."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._made: list[Solution] = []

    def __call__(self, run: Path | None) -> dict[str, dict[str, float]]:
        """By aggregate, the `last` step's or the `min` of all, of a head or, by log-probability, of the base."""
        kept = self._folder / f"{run.name if run else 'base'}.judged.json"
        if not kept.exists():
            self._made = self._made or sampled(MINIATURES[TASK], self._count, split="heldout")
            values = by_head(self._made, run / "model") if run else by_logps(MINIATURES[TASK], self._made)
            lowest = [list(accumulate(one, min)) for one in values]
            write_json(kept, {name: self._figures(one) for name, one in (("last", values), ("min", lowest))})
            print(f"    {kept.stem}: {read_json(kept)}", flush=True)
        found: dict[str, dict[str, float]] = read_json(kept)
        return found

    def _figures(self, values: Sequence[Sequence[float]]) -> dict[str, float]:
        """`auc` over all beginnings, and `ranked` over those that a search chooses from: of one question, of as many
        steps, without a wrong step before the last.
        """
        states, places = [], defaultdict(list)
        for one, own in zip(self._made, values, strict=True):
            for step, value in enumerate(own):
                right = one.error < 0 or step < one.error
                states.append((value, right))
                if right or step == one.error:
                    places[one.problem.id, step].append((value, right))
        pairs = [
            0.5 * ((a > b) + (a >= b))
            for found in places.values()
            for (a, right), (b, other) in product(found, found)
            if right and not other
        ]
        area = auc([value for value, _ in states], [right for _, right in states])
        return {"auc": area, "ranked": mean(pairs) if pairs else 0.5, "pairs": len(pairs)}
