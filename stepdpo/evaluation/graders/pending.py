"""A grade that still waits for two formulas to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepdpo.core.types import CORRECT, UNPARSED, WRONG, Grade
from stepdpo.evaluation.graders.logic import Truth

EQUAL, DIFFERENT, TIMEOUT, MEMORY, CRASH = "equal", "different", "timeout", "memory", "crash"
OUTCOMES = (EQUAL, DIFFERENT, TIMEOUT, MEMORY, CRASH)
LONGEST = 20_000
"""Answers of more characters than this are not compared at all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A request to a worker: do these predictions meet these golds under this rule?"""

    rule: str
    """`official` or `strict`."""
    predictions: tuple[str, ...]
    golds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """All of a grade but its verdict."""

    comparison: Comparison
    found_by: str

    @property
    def extracted(self) -> str:
        return ", ".join(self.comparison.predictions)

    def grade(self, outcome: str) -> Grade:
        """The grade for one of EQUAL, DIFFERENT, TIMEOUT, MEMORY, CRASH."""
        return Grade(CORRECT if outcome == EQUAL else WRONG, self.extracted, f"{self.found_by}; {outcome}")


Compare = Callable[[tuple[str, ...], tuple[str, ...]], Truth]


def settle(comparison: Comparison, found_by: str, cheaply: Compare) -> Grade | Pending:
    """Grade at once what strings and numbers decide, and leave the rest pending."""
    pending = Pending(comparison, found_by)
    if not any(comparison.predictions):
        return Grade(UNPARSED, "", "no answer found")
    if not comparison.golds:
        return Grade(WRONG, pending.extracted, "no gold answer")
    if max(map(len, comparison.predictions + comparison.golds)) > LONGEST:
        return Grade(WRONG, pending.extracted[:100], f"{found_by}; longer than {LONGEST} characters")
    verdict = cheaply(comparison.predictions, comparison.golds)
    return pending if verdict is None else pending.grade(EQUAL if verdict else DIFFERENT)
