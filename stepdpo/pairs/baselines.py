"""What other methods would be trained on, from the very samples that the step pairs are made of.

A gain by step pairs says something only beside methods that were given the same solutions: whole right against whole
wrong ones, right ones alone (rejection sampling), and supervised training on what the step search found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepdpo.core.steps import cut_step
from stepdpo.core.types import Mark, Preference, Problem
from stepdpo.pairs.solutions import Solution, distinct, instance_pairs

EXTRA = "extra samples"
"""Drawn for `more_right_solutions` alone."""


def baselines(
    problem: Problem,
    sampled: Sequence[Solution],
    more: Sequence[Solution],
    chosen: Sequence[tuple[int, Solution]],
    max_pairs: int,
) -> Mapping[str, tuple[Preference, ...]]:
    """The rows of every file in `BASELINES`.

    `sampled` and `more` (drawn for the last file alone) are whole solutions; `chosen` the step and the solution of the
    better side of each step pair. First wrong steps must be known of `sampled` and `chosen`.
    """
    right = [solution for solution in sampled if solution.correct]
    searched = [solution for _, solution in chosen if solution.right_to_the_end]
    return {
        "instance_pairs": instance_pairs(problem, sampled, max_pairs),
        "right_solutions": supervised(problem, right),
        "verified_solutions": supervised(problem, [solution for solution in right if solution.error is None]),
        "searched_solutions": supervised(problem, searched),
        "continuations": tuple(continuation(problem, index, solution) for index, solution in chosen),
        "more_right_solutions": supervised(problem, [*right, *(s for s in more if s.correct)]) if more else (),
    }


def supervised(problem: Problem, solutions: Iterable[Solution]) -> tuple[Preference, ...]:
    """Whole solutions to be trained on, each text once."""
    return tuple(
        _row(
            problem,
            "",
            solution.text,
            "",
            whole=True,
            label=float(solution.correct),
            steps=solution.marks(),
            sample=solution.id,
        )
        for solution in distinct(list(solutions))
    )


def continuation(problem: Problem, index: int, solution: Solution) -> Preference:
    """Step `index` and what follows it, up to the solution's own first wrong step.

    A step that is cut off teaches nothing about when to stop, and an unchecked rest may hold the next mistake.
    """
    prefix = solution.prefix(index)
    step, rest = cut_step(solution.up_to_error[len(prefix) :])
    about = {"sample": solution.id, "step": index, "first_wrong": solution.error}
    right = solution.marks()[: solution.error]
    return _row(problem, prefix, step, rest, whole=False, label=None, steps=right, **about)


def _row(
    problem: Problem,
    prefix: str,
    chosen: str,
    rest: str,
    whole: bool,
    label: float | None,
    steps: tuple[Mark, ...],
    **about: Any,
) -> Preference:
    """A row without a rejected side."""
    return Preference(
        question=problem.question,
        prefix=prefix,
        chosen=chosen,
        rejected="",
        chosen_rest=rest,
        answer=", ".join(problem.answers),
        whole=whole,
        label=label,
        chosen_steps=steps,
        meta={"problem": problem.id, **about},
    )
