"""Which kind of mistake a response to a long story makes first, and at how many moves it could have made it."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from stepdpo.core.steps import split_steps
from stepdpo.core.types import MistakeCount, Problem
from stepdpo.tinymath.story import Equation
from stepdpo.tinymath.working import EQUATION, follow, gold_equations, same_sum

MISTAKABLE = "mistakable"
"""Key of a long problem's meta: for every move the sum that takes its event for another one ("40 - 15"), or None."""


class Kind(StrEnum):
    """What can go wrong at a move."""

    mistaken = "event mistaken"
    """The step states the operation or the operand of another event, whatever it makes of them."""
    forgotten = "carry forgotten"
    """The right sum, and its result without the carry or the borrow."""
    other = "other"


def count_mistakes(problem: Problem, response: str) -> dict[str, MistakeCount]:
    """By kind, how often the response made it (0 or 1) and at how many of the moves that it reached it could have.

    Reached are the moves that its right steps work, and the first one that they leave open where a step is wrong.
    What comes after the first wrong step counts for nothing: it goes on from other numbers than the story's. Empty for
    a problem that does not say which of its events can be mistaken.
    """
    mistakable = problem.meta.get(MISTAKABLE)
    if mistakable is None:
        return {}
    equations = gold_equations(problem)
    _, steps = split_steps(response)
    error, progress = follow(problem, steps)
    at = next(iter(progress.open), None) if error is not None else None
    reached = [number for number in range(len(equations)) if number not in progress.open or number == at]
    made = None
    if error is not None:
        made = Kind.other if at is None else _kind(steps[error], equations[at], mistakable[at])
    could = {
        Kind.mistaken: sum(mistakable[number] is not None for number in reached),
        Kind.forgotten: sum(equations[number].carries for number in reached),
        Kind.other: len(reached),
    }
    return {kind.value: MistakeCount(int(kind is made), could[kind]) for kind in Kind}


def _kind(step: str, planned: Equation, mistaken: str | None) -> Kind:
    """What is wrong about the step that should have worked the planned equation."""
    without_carry = replace(planned, forgotten=True).result
    for match in EQUATION.finditer(step):
        operands = match[2], int(match[1]), int(match[3])
        if mistaken is not None and same_sum(_sum(mistaken), *operands):
            return Kind.mistaken
        if planned.carries and same_sum(planned, *operands) and int(match[4]) == without_carry:
            return Kind.forgotten
    return Kind.other


def _sum(text: str) -> Equation:
    left, operation, right = text.split()
    return Equation(int(left), operation, int(right))
