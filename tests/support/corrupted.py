"""A step pair from a right solution: one of its steps, and the same with another result."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stepdpo.core.steps import join_steps, label_of, prefix_before, split_steps
from stepdpo.core.types import Preference


def corrupt(question: str, solution: str, number: int) -> Preference:
    head, steps = split_steps(solution)
    at = number % len(steps)
    step = steps[at].removesuffix("\n").removeprefix(label_of(steps[at]))
    first, rest = _cut(step)
    return Preference(
        question=question,
        prefix=prefix_before(head, steps, at),
        chosen=first,
        rejected=re.sub(r"= (\d+)", lambda m: f"= {int(m[1]) + 1 + number}", first),
        chosen_rest=rest + _rest(steps[at + 1 :]),
        rejected_rest=rest + _rest(steps[at + 1 :]),
    )


def _cut(step: str) -> tuple[str, str]:
    """A step, and the final answer that may hang on it."""
    first, newline, answer = step.partition("\n")
    return first, newline + answer


def _rest(steps: Sequence[str]) -> str:
    return "\n" + join_steps("", steps) if steps else ""
