"""Hit rates by hand."""

from __future__ import annotations

import pytest

from stepdpo.evaluation.localisation import ScoredSteps, localisation

SOLUTIONS = [
    # The second step is wrong: the lowest sum and mean, the steepest fall; the first sum below 0 is the first's.
    ScoredSteps((-0.1, -2.0, 0.5), (-0.1, -0.5, 0.1), 1, (0.9, -0.2, -0.9)),
    # The last is wrong: lowest by mean, not by sum; none is below 0.
    ScoredSteps((0.1, 0.2), (0.1, 0.05), 1, (0.3, 0.2)),
    # Equal ones: the first is named, rightly.
    ScoredSteps((-1.0, -1.0, 3.0, 3.0), (-1.0, -1.0, 3.0, 3.0), 0, (-0.5, -0.6, 0.0, 0.1)),
    ScoredSteps((-5.0,), (-5.0,), 0, (-1.0,)),
]


def test_by_hand() -> None:
    """Of three with several steps: chance is (1/3 + 1/2 + 1/4) / 3."""
    found = localisation(SOLUTIONS, middle=0.0)
    hits = {name: rate["hits"] for name, rate in found["rules"].items()}
    assert hits == {
        "lowest_sum": 2, "lowest_mean": 3, "first_sum_below_0": 1,
        "lowest_value": 1, "steepest_fall_of_value": 2, "first_value_below_middle": 2,
        "always_first": 1, "always_last": 1,
    }  # fmt: skip
    assert (found["n"], found["one_step"], found["steps"]) == (3, 1, 3.0)
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)
    # Wilson's interval of 2 of 3, z = 1.959964: (p + z^2/2n -+ z sqrt(p (1-p) / n + z^2/4n^2)) / (1 + z^2/n).
    z, n, p = 1.959964, 3, 2 / 3
    middle, reach = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    rate = found["rules"]["lowest_sum"]
    assert rate["share"] == pytest.approx(p)
    assert (rate["ci_low"], rate["ci_high"]) == pytest.approx(
        ((middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)), abs=1e-6
    )


def test_without_a_head_and_without_anything() -> None:
    assert "lowest_value" not in localisation(SOLUTIONS)["rules"]
    assert localisation([]) == {"n": 0, "one_step": 0}
    assert localisation(SOLUTIONS[3:]) == {"n": 0, "one_step": 1}
