"""Does a score of steps point at the first wrong step? Hit rates of plain rules, beside what knows nothing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stepdpo.evaluation.first_error import first_below
from stepdpo.evaluation.statistics import wilson


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """One wrong solution: what is said of its steps, and the truth."""

    sums: tuple[float, ...]
    """One a step: the sum of its tokens' rewards."""
    means: tuple[float, ...]
    """The same a token."""
    first_error: int
    """Index of its first wrong step."""
    values: tuple[float, ...] = ()
    """What a value head says after each step; empty without a head."""


Rule = Callable[[ScoredSteps], int]
"""The step that a rule names; NO_ERROR where it names none, which is a miss."""


def localisation(solutions: Sequence[ScoredSteps], middle: float | None = None) -> dict[str, Any]:
    """How often each rule names the first wrong step: hits, share and Wilson 95 % interval; `n` 0 where there is none.

    Solutions of one step are left out, as every rule names it. `chance` is the mean of 1 / steps. Where errors lie is
    no even draw, so `always_first` and `always_last` stand beside it. `middle`: the value below which a step is wrong
    by the value head, where every solution has values.
    """
    of_several = [one for one in solutions if len(one.sums) > 1]
    n = len(of_several)
    if not n:
        return {"n": 0, "one_step": len(solutions)}
    rules: dict[str, Rule] = {
        "lowest_sum": lambda one: _lowest(one.sums),
        "lowest_mean": lambda one: _lowest(one.means),
        "first_sum_below_0": lambda one: first_below(one.sums, 0.0),
    }
    if middle is not None:
        rules["lowest_value"] = lambda one: _lowest(one.values)
        rules["steepest_fall_of_value"] = lambda one: _steepest_fall(one.values)
        rules["first_value_below_middle"] = lambda one: first_below(one.values, middle)
    rules |= {"always_first": lambda one: 0, "always_last": lambda one: len(one.sums) - 1}
    return {
        "n": n,
        "one_step": len(solutions) - n,
        "steps": sum(len(one.sums) for one in of_several) / n,
        "chance": sum(1 / len(one.sums) for one in of_several) / n,
        "rules": {
            name: _rate(sum(rule(one) == one.first_error for one in of_several), n) for name, rule in rules.items()
        },
    }


def _rate(hits: int, n: int) -> Mapping[str, float]:
    low, high = wilson(hits, n)
    return {"hits": hits, "share": hits / n, "ci_low": low, "ci_high": high}


def _lowest(scores: Sequence[float]) -> int:
    """The first of equal ones."""
    return min(range(len(scores)), key=scores.__getitem__)


def _steepest_fall(values: Sequence[float]) -> int:
    """After the first step, since nobody knows the value before it."""
    return 1 + _lowest([after - before for before, after in pairwise(values)])
