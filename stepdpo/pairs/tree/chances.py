"""What roll-outs say of a beginning: pure arithmetic on counts (Setlur et al. 2024, arXiv 2406.14532)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import comb


def best_of(rollouts: int, right: int, k: int = 1) -> float:
    """P(one of `k` further roll-outs is right), from `right` ones among `rollouts`; unbiased for k <= rollouts.

    1 - C(n - m, k) / C(n, k): the share of subsets of k roll-outs that hold a right one. k = 1 gives m / n.
    """
    if not 0 <= right <= rollouts or not 1 <= k <= rollouts:
        raise ValueError(f"best of {k}, {right} right of {rollouts}: k lies in [1, rollouts], right in [0, rollouts]")
    return 1 - comb(rollouts - right, k) / comb(rollouts, k)


def advantages(q: Sequence[float]) -> list[float]:
    """A_i = Q_i - Q_(i-1) of the steps i = 1, 2, ... from the values of all prefixes, the empty one first."""
    return [after - before for before, after in pairwise(q)]


def lowest(q: Sequence[float]) -> int:
    """The first step (from 1) after which Q is lowest."""
    return min(range(1, len(q)), key=lambda i: (q[i], i))
