"""How far the working of a tinymath solution is right, held against the problem's own working."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stepdpo.core.steps import label_of, split_steps
from stepdpo.core.types import Problem
from stepdpo.tinymath.story import Equation

WHOLE = r"(0|[1-9][0-9]{0,8})"
EQUATION = re.compile(rf"(?<![\w.,=*/+-])(?<![=*/+-] ){WHOLE} ([-+*/]) {WHOLE} = {WHOLE}(?! ?[-=*/+]|[.,]?\w)")
"""A free-standing `13 * 3 = 39`: no longer chain of operations, no decimals, no leading noughts."""
ANSWER = re.compile(rf"\bThe answer is:? {WHOLE}\.?\s*\Z")
NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Progress:
    """How far a solution has come: what is still to be worked and which numbers are known."""

    open: dict[int, Equation]
    """Planned equations still to be worked, by their number in the plan and in its order."""
    known: set[str]
    last: int = field(init=False)

    def __post_init__(self) -> None:
        self.last = next((planned.result for planned in reversed(self.open.values())), 0)

    def work(self, operation: str, left: int, right: int, result: int) -> bool:
        """Tick off the planned equation this is; False if it is none that can be worked now."""
        waited_for: set[int] = set()
        for number, planned in self.open.items():
            # It uses a number that an open equation has yet to give: out of turn, even if the sum is right.
            in_turn = not {planned.left, planned.right} & waited_for
            if in_turn and same_sum(planned, operation, left, right) and planned.result == result:
                del self.open[number]
                self.known.add(str(result))
                return True
            waited_for.add(planned.result)
        return False


def follow(problem: Problem, steps: Sequence[str]) -> tuple[int | None, Progress]:
    """The index from 0 of the first wrong step, or None, and how far the working has come by then."""
    progress = Progress(dict(enumerate(gold_equations(problem))), set(NUMBER.findall(problem.question)))
    for index, step in enumerate(steps):
        if not _right(step[len(label_of(step)) :], progress):
            return index, progress
    return None, progress


def gold_equations(problem: Problem) -> tuple[Equation, ...]:
    """The equations of the gold working, in order. Raises ValueError where a problem has none."""
    _, steps = split_steps(problem.solution)
    found = [match for step in steps for match in EQUATION.finditer(step)]
    if not found:
        raise ValueError(f"problem {problem.id}: its solution has no equations to check against")
    return tuple(Equation(int(match[1]), match[2], int(match[3])) for match in found)


def same_sum(planned: Equation, operation: str, left: int, right: int) -> bool:
    """Whether these are the planned operation and operands; those of `+` and `*` may be swapped."""
    if operation != planned.operation:
        return False
    if (left, right) == (planned.left, planned.right):
        return True
    return operation in "+*" and (right, left) == (planned.left, planned.right)


def _right(step: str, progress: Progress) -> bool:
    """Judge one step and note what it works out."""
    answer = ANSWER.search(step)
    working = step[: answer.start()] if answer else step
    equations = list(EQUATION.finditer(working))
    if not equations or not all(
        progress.work(match[2], int(match[1]), int(match[3]), int(match[4])) for match in equations
    ):
        return False
    loose = EQUATION.sub(" ", working)
    if "answer is" in loose or any(sign in loose for sign in "=*/+"):
        return False
    if not set(NUMBER.findall(loose)) <= progress.known:
        return False
    if progress.open:
        return answer is None
    return answer is not None and int(answer[1]) == progress.last
