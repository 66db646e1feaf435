"""Value estimates of prefixes, against enumeration."""

from __future__ import annotations

from itertools import combinations

import pytest

from stepdpo.pairs.tree.values import advantages, best_of, lowest


@pytest.mark.parametrize("rollouts", range(1, 8))
def test_best_of_is_the_share_of_subsets_with_a_right_one(rollouts: int) -> None:
    for right in range(rollouts + 1):
        outcomes = [True] * right + [False] * (rollouts - right)
        for k in range(1, rollouts + 1):
            subsets = list(combinations(outcomes, k))
            assert best_of(rollouts, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(("n", "k", "q"), [(6, 3, 0.3), (8, 5, 0.1), (5, 5, 0.5)])
def test_best_of_is_unbiased(n: int, k: int, q: float) -> None:
    """The mean over all 2^n outcomes, by their chances, is 1 - (1 - q)^k."""
    mean = 0.0
    for code in range(2**n):
        right = code.bit_count()
        mean += q**right * (1 - q) ** (n - right) * best_of(n, right, k)
    assert mean == pytest.approx(1 - (1 - q) ** k)


def test_best_of_five_of_eight_by_hand() -> None:
    """m = 1: 1 - C(7, 5) / C(8, 5) = 1 - 21/56; m = 3: 1 - 1/56; m = 4: no five wrong ones are left."""
    assert [best_of(8, m, 5) for m in (0, 1, 3, 4)] == pytest.approx([0, 35 / 56, 55 / 56, 1])
    assert best_of(8, 3) == 3 / 8


@pytest.mark.parametrize(("n", "m", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_counts_that_cannot_be(n: int, m: int, k: int) -> None:
    with pytest.raises(ValueError, match="best of"):
        best_of(n, m, k)


def test_advantages_add_up() -> None:
    q = [0.75, 0.5, 0.0, 0.25, 0.0]
    assert advantages(q) == [-0.25, -0.5, 0.25, -0.25]
    assert sum(advantages(q)) == q[-1] - q[0]


@pytest.mark.parametrize(
    ("q", "step"), [([0.75, 0.5, 0.0, 0.25, 0.0], 2), ([1, 1, 0], 2), ([0.5, 0.25, 0.25], 1), ([0.0, 0.5], 1)]
)
def test_the_first_of_the_lowest(q: list[float], step: int) -> None:
    assert lowest(q) == step
