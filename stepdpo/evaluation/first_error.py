"""Who names the first wrong step of a solution: ProcessBench's F1 (arXiv 2412.06559) and its threshold. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from stepdpo.evaluation.statistics import auc, wilson

KIND = "first_errors"
"""What the summary.json of such an evaluation says of itself."""
NO_ERROR = -1
"""Stands for a step where every step is right, as in ProcessBench's files."""
UNTOLD = -2
"""Stands for the step of a judge that could not be read: it is wrong, whatever the truth."""
GRID = 200
"""Thresholds that are tried, at most."""


@dataclass(frozen=True, slots=True)
class ScoredSolution:
    """A solution whose first wrong step is known, and what is said of its steps."""

    scores: tuple[float, ...]
    """One a step; the lower, the likelier it is wrong. Empty where nothing could be said."""
    first_error: int
    """From 0; NO_ERROR where every step is right."""
    subset: str = ""
    """Which part of the benchmark it belongs to."""


def first_below(scores: Sequence[float], threshold: float) -> int:
    """The first step with a score below the threshold; NO_ERROR where none is."""
    return next((step for step, score in enumerate(scores) if score < threshold), NO_ERROR)


def first_error_f1(predicted: Sequence[int], truth: Sequence[int]) -> tuple[float, float, float]:
    """(F1, share of the wrong solutions whose first wrong step was named, share of the right ones that were passed).

    The harmonic mean of the two shares; 0 where both are 0. Steps count from 0. A share of nothing is 0.
    """
    found = {
        wrong: [p == t for p, t in zip(predicted, truth, strict=True) if (t >= 0) is wrong] for wrong in (True, False)
    }
    named, passed = (sum(hits) / len(hits) if hits else 0.0 for hits in (found[True], found[False]))
    return (2 * named * passed / (named + passed) if named + passed else 0.0), named, passed


def predictions(solutions: Sequence[ScoredSolution], threshold: float) -> list[int]:
    """The step that is named of each: the first below the threshold."""
    return [first_below(one.scores, threshold) if one.scores else UNTOLD for one in solutions]


def best_threshold(solutions: Sequence[ScoredSolution]) -> float:
    """Of the scores that occur, GRID of them at most, the one with the largest F1; the lowest of equal ones.

    ValueError where there are no scores.
    """
    grid = sorted({score for one in solutions for score in one.scores})
    truth = [one.first_error for one in solutions]
    if not grid:
        raise ValueError("there are no scores to choose a threshold from")
    every = max(1, len(grid) // GRID)
    return max(grid[::every], key=lambda threshold: first_error_f1(predictions(solutions, threshold), truth)[0])


def held_out(question: str, share: float, seed: int) -> bool:
    """Whether a problem belongs to the `share` that a threshold is chosen on: by a hash, so a part of no other part."""
    digest = hashlib.sha256(f"{seed}\n{question}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def figures(solutions: Sequence[ScoredSolution], threshold: float) -> dict[str, Any]:
    """The numbers of each subset, and their plain means: `f1`, `named` (of the wrong ones), `passed` (of the right).

    A subset without wrong or without right solutions has an F1 of 0. `auc`: how often a beginning without a wrong step
    has a larger score than one with. `always_first`: how
    many of the wrong solutions go wrong at once, which is what naming the first step always would find.
    """
    subsets = {name: [one for one in solutions if one.subset == name] for name in sorted({s.subset for s in solutions})}
    by_subset = {name: _of_one(some, threshold) for name, some in subsets.items()}
    states = [
        (score, one.first_error < 0 or step < one.first_error)
        for one in solutions
        for step, score in enumerate(one.scores)
    ]
    area = auc([score for score, _ in states], [right for _, right in states])
    return {
        "n": len(solutions),
        **{key: fmean(one[key] for one in by_subset.values()) for key in ("f1", "named", "passed")},
        "auc": area if area == area else None,  # not a number where there are no beginnings of one of the kinds
        "steps": sum(len(one.scores) for one in solutions) / len(solutions),
        "untold": sum(not one.scores for one in solutions),
        "always_first": fmean(
            sum(one.first_error == 0 for one in some) / max(1, sum(one.first_error >= 0 for one in some))
            for some in subsets.values()
        ),
        "subsets": by_subset,
    }


def _of_one(solutions: Sequence[ScoredSolution], threshold: float) -> Mapping[str, Any]:
    predicted, truth = predictions(solutions, threshold), [one.first_error for one in solutions]
    f1, named, passed = first_error_f1(predicted, truth)
    wrong = sum(step >= 0 for step in truth)
    shares = {"named": (named, wrong), "passed": (passed, len(truth) - wrong)}
    intervals = {
        f"{name}_ci": list(wilson(round(share * many), many)) if many else None
        for name, (share, many) in shares.items()
    }
    return {"n": len(truth), "wrong": wrong, "f1": f1, "named": named, "passed": passed, **intervals}
