"""How sure an accuracy is, and whether two differ: proportions, Wilson intervals, the exact McNemar test. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest, rankdata

from stepdpo.core.types import CORRECT, UNPARSED, Attempt

GRADERS = ("strict", "official")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Paired:
    """Two systems on the same problems. delta = (gained - lost) / n, the other's accuracy minus the base's."""

    n: int
    base_correct: int
    correct: int
    gained: int
    """Problems that only the other solves."""
    lost: int
    """Problems that only the base solves."""

    @property
    def delta(self) -> float:
        """Difference of the accuracies, in [-1, 1]."""
        return (self.gained - self.lost) / self.n

    @property
    def stderr(self) -> float:
        """Standard error of `delta`, from the spread of the per-problem differences (each -1, 0 or 1)."""
        return math.sqrt((self.gained + self.lost) / self.n - self.delta**2) / math.sqrt(self.n)

    @property
    def p_value(self) -> float:
        """Two-sided exact McNemar test: were gains and losses equally likely."""
        return mcnemar(self.gained, self.lost)


def stderr(correct: int, n: int) -> float:
    """Standard error of a proportion, sqrt(p (1 - p) / n)."""
    share = correct / n
    return math.sqrt(share * (1 - share) / n)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson score interval of a proportion; it stays in [0, 1] and has a width even at 0 and n."""
    # p plus or minus 1.96 standard errors would have no width at 0 and n, and reach beyond [0, 1] near them.
    interval = binomtest(correct, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """How often a positive's score lies above a negative's, ties counted half: the area under the ROC curve.

    0.5 is what scores say that know nothing; NaN where one of the two kinds is missing.
    """
    above = sum(positive)
    below = len(positive) - above
    if not above or not below:
        return math.nan
    ranks = rankdata(scores)  # of equal scores, the mean of their places
    total = float(sum(rank for rank, is_positive in zip(ranks, positive, strict=True) if is_positive))
    return (total - above * (above + 1) / 2) / (above * below)


def first_error_f1(predicted: Sequence[int], truth: Sequence[int]) -> tuple[float, float, float]:
    """(F1, share of the wrong solutions whose first wrong step was named, share of the right ones that were passed).

    ProcessBench's F1 (arXiv 2412.06559): the harmonic mean of two accuracies; 0 where both are 0. Steps count from 0,
    -1 stands for no error. A share of nothing is 0.
    """
    found = {
        wrong: [p == t for p, t in zip(predicted, truth, strict=True) if (t >= 0) is wrong] for wrong in (True, False)
    }
    named, passed = (sum(hits) / len(hits) if hits else 0.0 for hits in (found[True], found[False]))
    return (2 * named * passed / (named + passed) if named + passed else 0.0), named, passed


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of a fair coin on the discordant pairs; 1 when there are none."""
    # Problems that both solve, or neither, say nothing. Exact, since the chi-square form is off where few are left.
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired(base: Mapping[str, bool], other: Mapping[str, bool]) -> Paired:
    """Compare on the problems both have answered; ValueError when there are none."""
    # Paired, since problems differ far more in how hard they are than two models do in what they solve.
    shared = base.keys() & other.keys()
    if not shared:
        raise ValueError("no problem was answered by both")
    return Paired(
        n=len(shared),
        base_correct=sum(base[key] for key in shared),
        correct=sum(other[key] for key in shared),
        gained=sum(other[key] and not base[key] for key in shared),
        lost=sum(base[key] and not other[key] for key in shared),
    )


def verdicts(attempts: Iterable[Attempt], grader: str) -> dict[str, bool]:
    """Whether each problem was solved, in the eyes of one grader."""
    return {attempt.problem_id: getattr(attempt, grader).verdict == CORRECT for attempt in attempts}


def summarise(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The numbers of one evaluation: `n`, `mean_tokens`, `truncated` (a count) and one block a grader."""
    if not attempts:
        raise ValueError("no attempts to summarise")
    n = len(attempts)
    return {
        "n": n,
        "mean_tokens": sum(attempt.tokens for attempt in attempts) / n,
        "truncated": sum(attempt.finish == "length" for attempt in attempts),
        "graders": {grader: _block([getattr(a, grader).verdict for a in attempts]) for grader in GRADERS},
    }


def _block(outcomes: Sequence[str]) -> dict[str, Any]:
    correct, n = outcomes.count(CORRECT), len(outcomes)
    low, high = wilson(correct, n)
    return {
        "correct": correct,
        "accuracy": correct / n,
        "stderr": stderr(correct, n),
        "ci_low": low,
        "ci_high": high,
        "unparsed": outcomes.count(UNPARSED),
    }
