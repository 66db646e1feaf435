"""Probabilities of steps, by hand."""

from __future__ import annotations

import pytest

from stepdpo.pairs.judges.first_error_posterior import first_error_posterior, most_informative


def test_nothing_is_known_beforehand() -> None:
    assert first_error_posterior([0, 0, 0], [0, 0, 0]) == pytest.approx([1 / 3] * 3)


def test_one_success_and_one_failure() -> None:
    """The mean rates are 1/2 and 0.05/1.05 = 1/21.

    A success before step 1 of two: 1/21 if step 0 is wrong, 1/2 if step 1 is: 2/23 and 21/23. A failure: 20/21 and 1/2.
    """
    assert first_error_posterior([0, 1], [0, 1]) == pytest.approx([2 / 23, 21 / 23])
    assert first_error_posterior([0, 0], [0, 1]) == pytest.approx([40 / 61, 21 / 61])


def test_rates_are_integrated_out() -> None:
    """Two successes of two: under Beta(1, 1) 1/3; under Beta(0.05, 1) it is 0.05/1.05 x 1.05/2.05 = 1/41."""
    assert first_error_posterior([0, 2], [0, 2]) == pytest.approx([3 / 44, 41 / 44])


def test_the_beginning_says_nothing() -> None:
    assert first_error_posterior([5, 1], [9, 1]) == pytest.approx(first_error_posterior([0, 1], [0, 1]))


def test_the_middle_tells_most_at_first() -> None:
    assert most_informative([0] * 3, [0] * 3, 1, 8) in (1, 2)
    assert most_informative([0] * 5, [0] * 5, 2, 8) in (2, 3)
    assert most_informative([0] * 5, [0, 8, 8, 8, 0], 2, 8) == 4
    assert most_informative([0] * 3, [0, 8, 7], 2, 8) is None
