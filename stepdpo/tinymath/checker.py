"""Judge the steps of a tinymath solution exactly, from the problem's own working."""

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
class _Progress:
    """How far a solution has come: what is still to be worked and which numbers are known."""

    open: list[Equation]
    known: set[str]
    last: int = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.open[-1].result if self.open else 0

    def work(self, operation: str, left: int, right: int, result: int) -> bool:
        """Tick off the planned equation this is; False if it is none that can be worked now."""
        for index, planned in enumerate(self.open):
            if not _same(planned, operation, left, right) or planned.result != result:
                continue
            # It uses a number that an open equation has yet to give: out of turn, even if the sum is right.
            if any({planned.left, planned.right} & {earlier.result} for earlier in self.open[:index]):
                continue
            del self.open[index]
            self.known.add(str(result))
            return True
        return False


@dataclass(frozen=True)
class TinymathChecker:
    """Finds the first wrong step by holding each step against the gold equations.

    A step is right when each of its equations is one of the gold equations still to be worked (operands of
    `+` and `*` may be swapped; an equation that waits for another's result may not come before it), when it
    mentions no number that is neither given nor worked out, and when the step that finishes the working, and
    no other, ends by stating the right final answer. Wording is free. A correct beginning has no error. A
    route to the answer over other equations than the gold ones counts as wrong.
    """

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None:
        """Index from 0 of the first wrong step, or None. Steps may carry their `Step k:` label."""
        progress = _Progress(list(gold_equations(problem)), set(NUMBER.findall(problem.question)))
        for index, step in enumerate(steps):
            if not _right(step[len(label_of(step)) :], progress):
                return index
        return None


def gold_equations(problem: Problem) -> tuple[Equation, ...]:
    """The equations of the gold working, in order. Raises ValueError where a problem has none."""
    _, steps = split_steps(problem.solution)
    found = [match for step in steps for match in EQUATION.finditer(step)]
    if not found:
        raise ValueError(f"problem {problem.id}: its solution has no equations to check against")
    return tuple(Equation(int(match[1]), match[2], int(match[3])) for match in found)


def _right(step: str, progress: _Progress) -> bool:
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


def _same(planned: Equation, operation: str, left: int, right: int) -> bool:
    if operation != planned.operation:
        return False
    if (left, right) == (planned.left, planned.right):
        return True
    return operation in "+*" and (right, left) == (planned.left, planned.right)
