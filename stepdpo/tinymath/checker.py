"""Judge the steps of a tinymath solution exactly, from the problem's own working."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stepdpo.core.types import MistakeCount, Problem
from stepdpo.tinymath.mistakes import count_mistakes
from stepdpo.tinymath.working import follow


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
        return follow(problem, steps)[0]

    def mistakes(self, problem: Problem, response: str) -> Mapping[str, MistakeCount]:
        """Its first mistake by kind, where the problem is a long story; else nothing."""
        return count_mistakes(problem, response)
