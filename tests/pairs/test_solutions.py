"""Wrong steps of solutions, and the order in which a limit on pairs takes them."""

from __future__ import annotations

from stepdpo.core.steps import split_steps
from stepdpo.pairs.solutions import Solution, WrongStep, new_prefixes_first


def solution(text: str, error: int | None = None) -> Solution:
    head, steps = split_steps(text)
    return Solution(text[-1], head, tuple(steps), error is None, error)


WRONG = solution("So.\nStep 1: a\nStep 2: b\nStep 3: c", 1)


def test_a_wrong_step_and_what_surrounds_it() -> None:
    wrong_step = WrongStep(WRONG, 1)
    assert (wrong_step.prefix, wrong_step.step) == ("So.\nStep 1: a\nStep 2:", " b")
    assert wrong_step.after(solution("So.\nStep 1: a\nStep 2: d\nStep 3: e")) == (" d", "\nStep 3: e")


def test_who_continues_its_prefix_rightly() -> None:
    """The same prefix, with a right step after it: neither another first step nor the wrong step itself."""
    right, late = solution("So.\nStep 1: a\nStep 2: d"), solution("So.\nStep 1: a\nStep 2: d\nStep 3: x", 2)
    others = [solution("So.\nStep 1: z\nStep 2: d"), WRONG, solution("So.\nStep 1: a")]
    assert WrongStep(WRONG, 1).continued_rightly([right, *others, late]) == [right, late]


def test_new_prefixes_come_first() -> None:
    """Prefixes p, p, q, r by their first steps; within the first ones of each, r is ranked before p and q."""
    texts = ("p", "p", "q", "r")
    steps = [WrongStep(solution(f"Step 1: {x}\nStep 2: {n}", 1), 1) for n, x in enumerate(texts)]
    order = [steps.index(step) for step in new_prefixes_first(steps)]
    assert order == [0, 2, 3, 1]
    ranked = new_prefixes_first(steps, lambda step: "Step 1: r" not in step.prefix)
    assert [steps.index(step) for step in ranked] == [3, 0, 2, 1]
