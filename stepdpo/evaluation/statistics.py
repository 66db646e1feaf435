"""How sure an accuracy is, and whether two differ: Wilson intervals, exact McNemar test, paired bootstrap. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest, norm, rankdata

from stepdpo.core.types import CORRECT, UNPARSED, Attempt, GradedResponse
from stepdpo.evaluation import bootstrap

GRADERS = ("strict", "official")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Paired:
    """Two systems on the same problems. delta = (gained - lost) / n, the other's accuracy minus the base's."""

    n: int
    base_correct: float
    """A whole number where every problem has one answer, as all of these."""
    correct: float
    gained: float
    """Problems that only the other solves; of several answers a problem, as much of them as it solves more."""
    lost: float
    """Problems that only the base solves."""
    differences: tuple[float, ...] = ()
    """Of each problem, where some problem is solved in part; empty where each is solved or not."""

    @property
    def delta(self) -> float:
        """Difference of the accuracies, in [-1, 1]."""
        return (self.gained - self.lost) / self.n

    @property
    def stderr(self) -> float:
        """Standard error of `delta`, from the spread of the per-problem differences."""
        squares = sum(one * one for one in self.differences) if self.differences else self.gained + self.lost
        return math.sqrt(max(0.0, squares / self.n - self.delta**2)) / math.sqrt(self.n)

    @property
    def p_value(self) -> float:
        """Two-sided: by the exact McNemar test (were gains and losses equally likely), else by a paired bootstrap."""
        return (
            bootstrap.p_value(self.differences) if self.differences else mcnemar(round(self.gained), round(self.lost))
        )


def stderr(correct: int, n: int) -> float:
    """Standard error of a proportion, sqrt(p (1 - p) / n)."""
    share = correct / n
    return math.sqrt(share * (1 - share) / n)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson score interval of a proportion; it stays in [0, 1] and has a width even at 0 and n."""
    # p plus or minus 1.96 standard errors would have no width at 0 and n, and reach beyond [0, 1] near them.
    interval = binomtest(correct, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_of_mean(mean: float, error: float, answers: int) -> tuple[float, float]:
    """The same of a mean of shares in [0, 1]: that of as many yes or no answers as have its standard error.

    `answers` is how many there are in all, and the most that it may be taken for: where all shares are alike the
    standard error says nothing.
    """
    n = min(mean * (1 - mean) / error**2, answers) if error else answers
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    centre, half = mean + z * z / (2 * n), z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


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


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of a fair coin on the discordant pairs; 1 when there are none."""
    # Problems that both solve, or neither, say nothing. Exact, since the chi-square form is off where few are left.
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired(base: Mapping[str, float], other: Mapping[str, float]) -> Paired:
    """Compare on the problems both have answered, each solved or not, or in part; ValueError when there are none."""
    # Paired, since problems differ far more in how hard they are than two models do in what they solve.
    shared = [key for key in base if key in other]
    if not shared:
        raise ValueError("no problem was answered by both")
    differences = [float(other[key]) - float(base[key]) for key in shared]
    whole = all(one[key] in (0, 1) for one in (base, other) for key in shared)
    return Paired(
        n=len(shared),
        base_correct=_whole(math.fsum(base[key] for key in shared)),
        correct=_whole(math.fsum(other[key] for key in shared)),
        gained=_whole(math.fsum(one for one in differences if one > 0)),
        lost=_whole(-math.fsum(one for one in differences if one < 0)),
        differences=() if whole else tuple(differences),
    )


def verdicts(attempts: Iterable[Attempt], grader: str) -> dict[str, float]:
    """How far each problem was solved, in the eyes of one grader: 1 or 0 where it has one answer.

    Under several seeds, the mean of them.
    """
    parts: dict[str, list[float]] = {}
    for attempt in attempts:
        parts.setdefault(attempt.problem_id, []).append(attempt.part(grader, CORRECT))
    return {problem: math.fsum(some) / len(some) for problem, some in parts.items()}


def by_seed(attempts: Iterable[Attempt], grader: str) -> dict[int, float]:
    """The accuracy under each seed; empty where attempts carry none."""
    parts: dict[int, list[float]] = {}
    for attempt in attempts:
        if attempt.seed is not None:
            parts.setdefault(attempt.seed, []).append(attempt.part(grader, CORRECT))
    return {seed: math.fsum(some) / len(some) for seed, some in parts.items()}


def summarise(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The numbers of one evaluation: `n`, `mean_tokens`, `truncated` (a count) and one block a grader.

    Of several responses to a problem each counts as far as it is the answer, and so does each attempt of several seeds:
    counts need not be whole. `n` are problems.
    """
    if not attempts:
        raise ValueError("no attempts to summarise")
    n = len({attempt.problem_id for attempt in attempts})
    return {
        "n": n,
        "mean_tokens": _of_responses(attempts, lambda one: one.tokens) / len(attempts),
        "truncated": _whole(_of_responses(attempts, lambda one: one.finish == "length") * n / len(attempts)),
        "graders": {grader: _block(attempts, grader) for grader in GRADERS},
    }


def counted(number: float) -> str:
    """A count as people read it; one in parts to a tenth."""
    return str(number) if isinstance(number, int) else f"{number:.1f}"


def _of_responses(attempts: Sequence[Attempt], number: Callable[[Attempt | GradedResponse], float]) -> float:
    """The sum over all problems of a number of the answer's responses, each by its share."""
    return math.fsum(
        math.fsum(one.share * number(one) for one in attempt.samples) if attempt.samples else number(attempt)
        for attempt in attempts
    )


def _block(attempts: Sequence[Attempt], grader: str) -> dict[str, Any]:
    # A problem is one draw, however often it was attempted: what varies between problems is what is sure or unsure.
    parts = list(verdicts(attempts, grader).values())
    n = len(parts)
    correct = _whole(math.fsum(parts))
    mean = correct / n
    error = math.sqrt(math.fsum((part - mean) ** 2 for part in parts)) / n
    if all(part in (0, 1) for part in parts):
        error, (low, high) = stderr(round(correct), n), wilson(round(correct), n)
    elif len(attempts) > n:
        low, high = bootstrap.interval(parts, CONFIDENCE)
    else:
        low, high = wilson_of_mean(mean, error, sum(max(1, len(attempt.samples)) for attempt in attempts))
    return {
        "correct": correct,
        "accuracy": mean,
        "stderr": error,
        "ci_low": low,
        "ci_high": high,
        "unparsed": _whole(math.fsum(attempt.part(grader, UNPARSED) for attempt in attempts) * n / len(attempts)),
    }


def _whole(number: float) -> float:
    """A count: an int where it is one but for rounding."""
    return round(number) if abs(number - round(number)) < 1e-9 * max(1.0, abs(number)) else number
