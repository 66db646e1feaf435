"""Few-shot examples: worked solutions that a model reads before the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least
from stepdpo.core.steps import final_answer_stated
from stepdpo.core.types import Problem, Turn
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.problem_fields import read_problem
from stepdpo.data.readers import READERS, read_rows
from stepdpo.data.rows import Row

CALCULATOR = re.compile(r"<<[^<>\n]*>>")
"""What GSM8K's solutions write for a calculator, beside what they write for people."""


@dataclass(frozen=True)
class Shots:
    """Worked problems to choose from, and how many of them stand before a question."""

    count: int
    examples: tuple[Problem, ...]
    """One more than `count`, where there are as many: none is shown before its own question."""
    source: str = ""
    """Where they are from, as `task.shots_from` has it."""

    def turns(self, question: str) -> tuple[str, tuple[Turn, ...]]:
        """What is asked first, and the turns after it, of which the last is the question."""
        shown = self.before(question)
        asked = [*(one.question for one in shown), question]
        solved = [_worked(one) for one in shown]
        turns = [
            turn
            for solution, then in zip(solved, asked[1:], strict=True)
            for turn in (Turn("assistant", solution), Turn("user", then))
        ]
        return asked[0], tuple(turns)

    def before(self, question: str) -> list[Problem]:
        """The examples that are shown before a question; never the question itself."""
        return [one for one in self.examples if _key(one.question) != _key(question)][: self.count]


def choose(count: int, problems: Sequence[Problem], source: str) -> Shots:
    """`count` of the problems that have a worked solution: evenly spread over them, so that a file which is sorted by
    subject shows several; of `count` of them all, in their order. UserError where they are too few.
    """
    solved = list({_key(one.question): one for one in problems if one.solution.strip()}.values())
    if len(solved) < count:
        known = f"{len(solved)} of {len(problems)} problems there have a worked solution"
        raise UserError(f"task.shots={count}: {known} (task.shots_from={source})")
    places = [number * len(solved) // count for number in range(count)]
    spare = next((place for place in range(len(solved)) if place not in places), None)
    return Shots(count, tuple(solved[place] for place in [*places, *([] if spare is None else [spare])]), source)


def must_suffice(shots: Shots, problems: Sequence[Problem]) -> None:
    """UserError where a problem is among the examples, and nothing is left to take its place."""
    for problem in problems:
        if len(shots.before(problem.question)) < shots.count:
            raise UserError(
                f"task.shots={shots.count}: problem {problem.id} is one of the {len(shots.examples)} worked ones in "
                f"task.shots_from={shots.source}, so that too few stand before it; name fewer, or another file"
            )


def check_shots(shots: int) -> None:
    """ValueError unless it is a number from 0."""
    at_least(0, shots=shots)


def is_file(source: str) -> bool:
    """Whether `task.shots_from` names a file or a folder and not a split."""
    return Path(source).suffix in READERS or "/" in source


def read_worked(path: str) -> list[Problem]:
    """The problems of a file, in the usual columns; rows that are none are left out."""
    found = []
    for number, row in enumerate(read_rows(path)):
        if isinstance(row, Row):
            with suppress(RowError):
                stated = read_problem(RowFields(row.cells, {}))
                found.append(Problem(f"{path}:{number}", stated.question, stated.answers, stated.solution))
    return found


def _worked(problem: Problem) -> str:
    """A solution that ends in its answer, as a response should."""
    text = CALCULATOR.sub("", problem.solution).strip()
    return text if final_answer_stated(text) else f"{text}\nThe answer is: {', '.join(problem.answers)}"


def _key(question: str) -> str:
    return " ".join(question.split()).casefold()
