"""A task: the problems of a benchmark, from a file or the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.protocols import Checker
from stepdpo.core.types import Problem
from stepdpo.data.choices import with_options
from stepdpo.data.columns import missing
from stepdpo.data.dedup import HashSet
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.problem_fields import COLUMNS, read_problem, require_answer
from stepdpo.data.problem_stream import ProblemStream, check_limit
from stepdpo.data.readers import locate, read_rows
from stepdpo.data.rows import BadRow, Row
from stepdpo.data.shots import Shots, check_shots, choose, is_file

SHOWN = 5
"""Bad rows that an error message shows."""
_META = ("level", "type", "subject", "source")
_IDS = ("id", "unique_id")
_OPTIONS = "options"


@dataclass(frozen=True)
class Task:
    """Problems with gold answers. Every row must be usable: a benchmark with holes is another benchmark."""

    name: str
    """What results are filed under."""
    path: str
    """A .jsonl, .json, .csv, .parquet or .arrow file, a folder of them, or a hub id `owner/name`."""
    split: str = "test"
    """The split of a hub data set; in a folder, what the file names begin with."""
    subset: str = ""
    """The configuration of a hub data set."""
    revision: str = ""
    """A branch, tag or commit of a hub data set."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a column for the usual name of it: {question: query}.

    Also a place inside a column, {answer: meta.gold}, a text put together of several, {question: "{body} {ask}"}, and
    {options: choices}, which are shown below the question, and of which the answer is a letter.
    """
    limit: int | None = None
    """The first so many problems only."""
    checker: Checker | None = None
    """An exact step checker, for a task that has one."""
    shots: int = 0
    """Worked examples before every question of an evaluation (few-shot)."""
    shots_from: str = "train"
    """The split that they are from, or a file of them."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_limit(self.limit)
        check_shots(self.shots)
        known = (*COLUMNS, _OPTIONS, *_IDS, *_META)
        for column in self.columns:
            if column not in known:
                raise ValueError(f"columns: problems have no {column!r}; {nearest(column, known)}")

    def problems(self) -> list[Problem]:
        """All problems, in the order of the rows. UserError names the rows that cannot be used."""
        good: list[Problem] = []
        self._check(good.append)
        return good

    def examples(self) -> Shots | None:
        """The worked examples; None without any. UserError where there are too few, or no such split."""
        if not self.shots:
            return None
        if is_file(self.shots_from):
            there = replace(self, path=self.shots_from, split="", subset="", revision="", limit=None)
        elif (place := locate(self.path)) is not None and place.is_file():
            raise UserError(
                f"task.shots_from={self.shots_from}: {self.path} is one file and has no splits; name a file of worked "
                "examples, as in task.shots_from=train.jsonl"
            )
        else:
            there = replace(self, split=self.shots_from, limit=None)
        # Rows that are no problems are no examples; the benchmark itself is read by `problems`.
        return choose(self.shots, [one for one in there._read() if isinstance(one, Problem)], self.shots_from)

    def stream(self) -> ProblemStream:
        """The same, read as they are needed; yet every row is looked at before the first problem is given out."""
        return ProblemStream(self._check(lambda problem: None), self._good)

    def _check(self, keep: Callable[[Problem], None]) -> int:
        """How many problems there are. UserError for bad rows, equal ids, or none at all."""
        # Ids by their hashes: a stream of millions is gone through without being held.
        known, again, shown = HashSet(), Counter[str](), list[BadRow]()
        good = bad = 0
        for one in self._read():
            if isinstance(one, BadRow):
                bad += 1
                shown = [*shown, one][:SHOWN]
                continue
            good += 1
            keep(one)
            if not known.add(one.id):
                again[one.id] += 1
        if bad:
            raise UserError(_complaint(self.path, shown, bad, good))
        if not good:
            raise UserError(f"{self.path}: there are no problems in it")
        for name, count in again.most_common(1):
            raise UserError(f"{self.path}: {count + 1} problems have the id {name!r}; ids must differ")
        return good

    def _read(self) -> Iterator[Problem | BadRow]:
        """Every row as a problem, or why it is none."""
        number = 0
        for row in read_rows(self.path, split=self.split, subset=self.subset, revision=self.revision):
            one = row if isinstance(row, BadRow) else self._usable(row, number)
            yield one
            number += isinstance(one, Problem)
            if number == self.limit:
                return

    def _usable(self, row: Row, number: int) -> Problem | BadRow:
        try:
            return self._problem(row, number)
        except RowError as error:
            return row.bad(str(error))

    def _good(self) -> Iterator[Problem]:
        return (one for one in self._read() if isinstance(one, Problem))

    def _problem(self, row: Row, number: int) -> Problem:
        cells = RowFields(row.cells, self.columns)
        for ours, theirs in self.columns.items():
            if ours not in _META and (lacking := missing(row.cells, theirs)):
                raise RowError(f"columns.{ours}: {lacking}")
        stated = require_answer(read_problem(cells), cells)
        question, answers = stated.question, stated.answers
        if _OPTIONS in self.columns:
            named = cells.value("answer") if cells.has("answer") else stated.answers[0]
            question, letter = with_options(question, cells.value(_OPTIONS), named)
            answers = (letter,)
        given = next((found for c in _IDS if isinstance(found := cells.value(c), str | int)), None)
        return Problem(
            id=str(given) if given is not None else f"{self.name}/{number:05d}",
            question=question,
            answers=answers,
            solution=stated.solution,
            meta=cells.some(_META),
        )


def _complaint(path: str, shown: list[BadRow], bad: int, good: int) -> str:
    lines = [f"  {row.place}: {row.reason}" for row in shown]
    if bad > len(shown):
        lines.append(f"  and {bad - len(shown)} more")
    known = f"  columns that are understood: {', '.join(COLUMNS)}; set `columns` where they are named differently"
    return "\n".join([f"{path}: {bad} of {bad + good} rows are no problems", *lines, known])
