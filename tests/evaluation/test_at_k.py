"""pass@k, maj@k, best of k and weighted votes against a look at every choice of k of n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb, exp, sqrt

import pytest

from stepdpo.evaluation import at_k
from stepdpo.evaluation.at_k import best_at_k, majority_at_k, pass_at_k, weighted_at_k

RIGHT = [True, False, True, False, False, False]
GROUPS = [0, 1, 0, None, 4, 1]
"""Two give the right answer, two one wrong answer, one another, one none."""
SCORES = [0.5, 0.9, 0.25, 0.75, 0.25, 0.5]


def choices(k: int) -> list[tuple[int, ...]]:
    return list(combinations(range(6), k))


def voted(chosen: Sequence[int], weights: Sequence[float]) -> float:
    """The right answer's part of the vote of some responses."""
    votes: Counter[int] = Counter()
    for place in chosen:
        group = GROUPS[place]
        if group is not None:
            votes[group] += weights[place]  # type: ignore[assignment]
    if not votes:
        return 0.0
    won = [group for group, count in votes.items() if abs(count - max(votes.values())) < 1e-12]
    return (0 in won) / len(won)


@pytest.mark.parametrize("k", range(1, 7))
def test_against_every_choice(k: int) -> None:
    some = choices(k)
    assert pass_at_k(6, 2, k) == pytest.approx(sum(any(RIGHT[i] for i in c) for c in some) / len(some))
    assert majority_at_k(GROUPS, RIGHT, k).value == pytest.approx(sum(voted(c, [1] * 6) for c in some) / len(some))
    by_score = sum(voted(c, SCORES) for c in some) / len(some)
    assert weighted_at_k(GROUPS, RIGHT, SCORES, k, log=False).value == pytest.approx(by_score)
    by_exp = sum(voted(c, [exp(s) for s in SCORES]) for c in some) / len(some)
    assert weighted_at_k(GROUPS, RIGHT, SCORES, k, log=True).value == pytest.approx(by_exp)
    best = [[i for i in c if SCORES[i] == max(SCORES[j] for j in c)] for c in some]
    assert best_at_k(RIGHT, SCORES, k) == pytest.approx(
        sum(sum(RIGHT[i] for i in b) / len(b) for b in best) / len(best)
    )


def test_ties_are_worth_much() -> None:
    """Two right of six with two pairs of equal wrong answers: by hand, maj@3 over the 20 choices.

    Right wins with both right ones in (4 choices); wins a third where one of each of three answers is there (8
    choices); and has nothing where two equal wrong ones are.
    """
    right, groups = [True, True, False, False, False, False], [0, 0, 2, 2, 4, 4]
    assert majority_at_k(groups, right, 3).value == pytest.approx((4 + 8 / 3) / 20)


def test_one_and_all() -> None:
    assert pass_at_k(6, 2, 1) == pytest.approx(1 / 3)
    assert majority_at_k([0, 1, 0, 3, 4, 1], RIGHT, 1).value == pytest.approx(1 / 3)
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1
    assert pass_at_k(10_000, 3, 100) == pytest.approx(1 - comb(9_997, 100) / comb(10_000, 100))
    assert majority_at_k([None, None], [False, False], 2).value == 0


def test_too_many_choices_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = majority_at_k(GROUPS, RIGHT, 3).value
    monkeypatch.setattr(at_k, "MOST", 5)
    drawn = majority_at_k(GROUPS, RIGHT, 3, seed=1)
    assert drawn == majority_at_k(GROUPS, RIGHT, 3, seed=1)
    shares = [voted(c, [1] * 6) for c in choices(3)]
    spread = sqrt(sum((share - exact) ** 2 for share in shares) / len(shares) / at_k.DRAWN)
    assert drawn.stderr == pytest.approx(spread, rel=0.1)
    assert drawn.value == pytest.approx(exact, abs=5 * spread)


@pytest.mark.parametrize("k", [0, 7])
def test_k_of_n(k: int) -> None:
    with pytest.raises(ValueError, match="k must lie in 1 to n = 6"):
        pass_at_k(6, 2, k)
