"""What n sampled responses to a problem say of k of them: pass@k, maj@k, best of k, weighted vote. Pure.

Each is a mean over all k of the n, and each is of one problem; over problems they are averaged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, fsum, sqrt

from stepdpo.generation.votes import vote_weights, winners

MOST = 20_000
"""Choices of k of n that are all looked at; of more, `DRAWN` are drawn."""
DRAWN = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate for one problem."""

    value: float
    """In [0, 1]."""
    stderr: float = 0.0
    """Of drawing choices of k; 0 where all were looked at."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """How likely one of k is right: 1 - C(n - right, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374), unbiased."""
    _check(n, k)
    # As a product: binomial coefficients of large numbers are far larger than their ratio.
    missed = 1.0
    for i in range(n - right + 1, n + 1):
        missed *= max(0.0, 1 - k / i)
    return 1 - missed


def best_at_k(right: Sequence[bool], scores: Sequence[float], k: int) -> float:
    """How likely the best-scored of k is right: sum over i of right_i C(n - i, k - 1) / C(n, k), the best first.

    Exact. Of equal scores each is the best equally often.
    """
    n = len(right)
    _check(n, k)
    order = sorted(range(n), key=lambda place: -scores[place])
    total, at = 0.0, 0
    while at < n:
        tied = [place for place in order[at:] if scores[place] == scores[order[at]]]
        chance = sum(comb(n - 1 - place, k - 1) for place in range(at, at + len(tied))) / comb(n, k)
        total += chance * sum(right[place] for place in tied) / len(tied)
        at += len(tied)
    return total


def majority_at_k(groups: Sequence[int | None], right: Sequence[bool], k: int, seed: int = 0) -> Estimate:
    """How likely the answer that most of k give is right; a tie is right as far as the right answer is among the tied.

    A response without an answer votes for nothing; where none has one, the answer is wrong.
    """
    return _vote_at_k(groups, right, k, seed, lambda chosen: [1.0] * len(chosen))


def weighted_at_k(
    groups: Sequence[int | None], right: Sequence[bool], scores: Sequence[float], k: int, log: bool, seed: int = 0
) -> Estimate:
    """The same where each vote counts its score: a probability as it is, of a logarithm its exp."""
    return _vote_at_k(groups, right, k, seed, lambda chosen: vote_weights([scores[i] for i in chosen], log))


def _vote_at_k(
    groups: Sequence[int | None],
    right: Sequence[bool],
    k: int,
    seed: int,
    weights: Callable[[Sequence[int]], list[float]],
) -> Estimate:
    n = len(groups)
    _check(n, k)
    # A class is right if the first response that gives it is: its others may be graded by other words.
    verdict: dict[int, bool] = {}
    for group, is_right in zip(groups, right, strict=True):
        if group is not None:
            verdict.setdefault(group, is_right)
    shares = []
    for chosen in _choices(n, k, seed):
        won = winners([groups[i] for i in chosen], weights(chosen))
        shares.append(sum(verdict[group] for group in won) / len(won) if won else 0.0)
    mean = fsum(shares) / len(shares)
    if comb(n, k) <= MOST:
        return Estimate(mean)
    variance = fsum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
    return Estimate(mean, sqrt(variance / len(shares)))


def _choices(n: int, k: int, seed: int) -> Iterator[tuple[int, ...]]:
    """All choices of k of n in order, or DRAWN of them."""
    if comb(n, k) <= MOST:
        yield from combinations(range(n), k)
        return
    stream = random.Random(seed)
    for _ in range(DRAWN):
        yield tuple(sorted(stream.sample(range(n), k)))


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must lie in 1 to n = {n}, got {k}")
