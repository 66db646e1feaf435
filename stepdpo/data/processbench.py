"""ProcessBench (arXiv 2412.06559): solutions whose first wrong step people have marked, from its files or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least, below_one
from stepdpo.core.types import Problem
from stepdpo.data.columns import missing
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.labelled_solutions import LabelledSolution
from stepdpo.data.problem_stream import check_limit
from stepdpo.data.readers import locate, read_rows
from stepdpo.data.rows import BadRow, Row

COLUMNS = ("id", "problem", "steps", "label", "final_answer_correct")
SHOWN = 5
"""Bad rows that an error message shows."""


@dataclass(frozen=True)
class ProcessBench:
    """Problems with one solution each and its first wrong step, as people have found it."""

    name: str = "processbench"
    path: str = "Qwen/ProcessBench"
    """A file, a folder of files, or a hub id."""
    subsets: tuple[str, ...] = ("gsm8k", "math", "olympiadbench", "omnimath")
    """Splits of the hub data set; in a folder, what the names of their files begin with. A file is read whole."""
    revision: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    """As of other tasks: {problem: question}."""
    step: str = "Step {number}: {text}\n"
    """How a step is written for a model to read; the last one ends without the line break."""
    threshold: float | None = None
    heldout: float = 0.25
    seed: int = 0
    limit: int | None = None
    """The first so many solutions of each subset only."""
    checker: Checker | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_limit(self.limit)
        below_one(heldout=self.heldout)
        at_least(0, seed=self.seed)
        if "{text}" not in self.step:
            raise ValueError("step: must hold {text}, where the step is written")
        for column in self.columns:
            if column not in COLUMNS:
                raise ValueError(f"columns: {column!r} is none of ProcessBench's; {nearest(column, COLUMNS)}")

    def problems(self) -> list[Problem]:
        """The problems, each once."""
        return list({one.problem.question: one.problem for one in self.solutions()}.values())

    def solutions(self) -> list[LabelledSolution]:
        """All subsets, one after another. UserError names the rows that cannot be used."""
        place = locate(self.path)
        found: list[LabelledSolution] = []
        for subset in self.subsets if place is None or place.is_dir() else ("",):
            found += self._of_subset(subset, place)
        return found

    def _of_subset(self, subset: str, place: Path | None) -> list[LabelledSolution]:
        found: list[LabelledSolution] = []
        bad: list[BadRow] = []
        for number, row in enumerate(read_rows(self.path, split=subset, revision=self.revision)):
            one = self._read(row, number, subset or (place.name.partition(".")[0] if place else ""))
            if isinstance(one, BadRow):
                bad.append(one)
                continue
            found.append(one)
            if len(found) == self.limit:
                break
        if bad:
            lines = [f"  {row.place}: {row.reason}" for row in bad[:SHOWN]]
            lines += [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
            lines.append(f"  columns: {', '.join(COLUMNS)}; set `columns` where they are named differently")
            raise UserError("\n".join([f"{self.path}: {len(bad)} rows are no labelled solutions", *lines]))
        if not found:
            raise UserError(f"{self.path}: there are no solutions in it")
        return found

    def _read(self, row: Row | BadRow, number: int, subset: str) -> LabelledSolution | BadRow:
        if isinstance(row, BadRow):
            return row
        try:
            return self._solution(RowFields(row.cells, self.columns), number, subset)
        except RowError as error:
            return row.bad(str(error))

    def _solution(self, cells: RowFields, number: int, subset: str) -> LabelledSolution:
        for ours, theirs in self.columns.items():
            if lacking := missing(cells.values, theirs):
                raise RowError(f"columns.{ours}: {lacking}")
        steps = cells.items("steps", "a list of steps")
        if not all(isinstance(step, str) and step.strip() for step in steps):
            raise RowError("column 'steps': expected texts, none of them empty")
        if cells.value("label") is None:
            cells.text("label")  # raises, and names what there is
        label = cells.number("label", None, -1, len(steps) - 1)
        if label is None or label != int(label):
            raise RowError(f"column 'label': expected the place of a step from 0, or -1, got {label}")
        given = cells.value("id")
        name = str(given) if isinstance(given, str | int) else f"{subset}-{number}"
        question = cells.text("problem")
        correct = cells.value("final_answer_correct")
        # A file that holds several subsets tells them by their ids alone: gsm8k-0, math-17.
        told = re.fullmatch(r"([A-Za-z]\w*)-\d+", name)
        return LabelledSolution(
            id=name,
            problem=Problem(name, question, ()),
            head="",
            steps=tuple(written(steps, self.step)),
            first_error=int(label),
            subset=told[1] if told and told[1] in self.subsets else subset,
            correct=correct if isinstance(correct, bool) else None,
        )


def written(steps: Sequence[str], form: str) -> Iterator[str]:
    """Each step as a model is to read it; the last one without white space at its end."""
    for number, text in enumerate(steps, start=1):
        step = form.replace("{number}", str(number)).replace("{text}", text.strip())
        yield step if number < len(steps) else step.rstrip()
