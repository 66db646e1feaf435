"""A task: the problems of a benchmark, from a file, the hub or a generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stepdpo.dataset.columns import Cells, RowError
from stepdpo.dataset.problems import COLUMNS, read_problem, require_answer
from stepdpo.dataset.read import read_rows
from stepdpo.dataset.rows import BadRow, Row
from stepdpo.errors import UserError
from stepdpo.records import Problem

SHOWN = 5
"""Bad rows that an error message shows."""
_META = ("level", "type", "subject", "source")


@dataclass(frozen=True)
class Task:
    """Problems with gold answers. Every row must be usable: a benchmark with holes is another benchmark."""

    name: str
    """What results are filed under."""
    path: str
    """A .jsonl, .json or .parquet file, a folder of them, or a hub id `owner/name`."""
    split: str = "test"
    """The split of a hub data set; in a folder, what the file names begin with."""
    subset: str = ""
    """The configuration of a hub data set."""
    revision: str = ""
    """A branch, tag or commit of a hub data set."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a column for the usual name of it: {question: query}."""
    limit: int | None = None
    """The first so many problems only."""
    checker: Any = None
    """An exact step checker, for a task that has one."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        _check_limit(self.limit)

    def problems(self) -> list[Problem]:
        """All problems, in the order of the rows. UserError names the rows that cannot be used."""
        good: list[Problem] = []
        bad: list[BadRow] = []
        for row in read_rows(self.path, split=self.split, subset=self.subset, revision=self.revision):
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            try:
                good.append(self._problem(row, len(good)))
            except RowError as error:
                bad.append(row.bad(str(error)))
            if len(good) == self.limit:
                break
        if bad:
            raise UserError(_complaint(self.path, bad, len(good)))
        if not good:
            raise UserError(f"{self.path}: there are no problems in it")
        return _with_distinct_ids(good, self.path)

    def _problem(self, row: Row, number: int) -> Problem:
        cells = Cells(row.cells, self.columns)
        stated = require_answer(read_problem(cells))
        given = next((row.cells[c] for c in ("id", "unique_id") if isinstance(row.cells.get(c), str | int)), None)
        return Problem(
            id=str(given) if given is not None else f"{self.name}/{number:05d}",
            question=stated.question,
            answers=stated.answers,
            solution=stated.solution,
            meta=cells.some(_META),
        )


@dataclass(frozen=True)
class TinymathTask:
    """The embedded miniature: problems made by rule, so that they are never short and never known."""

    name: str = "tinymath"
    """What results are filed under."""
    split: str = "test"
    """train or test; the two share no question."""
    count: int = 1000
    """How many problems."""
    seed: int = 0
    """Chooses the problems."""
    limit: int | None = None
    """The first so many problems only."""
    checker: Any = None
    """The exact step checker."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        _check_limit(self.limit)
        if self.count < 1:
            raise ValueError(f"count: expected a number from 1, got {self.count}")

    def problems(self) -> list[Problem]:
        """Generate the problems."""
        from stepdpo.tinymath.problems import problems

        return list(problems(self.split, self.count, seed=self.seed))[: self.limit]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected a number from 1, got {limit}")


def _complaint(path: str, bad: list[BadRow], good: int) -> str:
    lines = [f"  {row.place}: {row.reason}" for row in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN} more")
    known = f"  columns that are understood: {', '.join(COLUMNS)}; set `columns` where they are named differently"
    return "\n".join([f"{path}: {len(bad)} of {len(bad) + good} rows are no problems", *lines, known])


def _with_distinct_ids(problems: list[Problem], path: str) -> list[Problem]:
    (name, count), *_ = Counter(problem.id for problem in problems).most_common(1)
    if count > 1:
        raise UserError(f"{path}: {count} problems have the id {name!r}; ids must differ")
    return problems
