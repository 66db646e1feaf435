"""The bootstrap against scipy's, and its p against the normal approximation it should be near."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from stepdpo.evaluation.bootstrap import RESAMPLES, interval, p_value

DIFFERENCES = [0.25] * 30 + [-0.25] * 18 + [0.0] * 52 + [0.5] * 4 + [-0.5] * 2


def test_interval_as_scipy_has_it() -> None:
    theirs = bootstrap(
        (np.array(DIFFERENCES),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        random_state=np.random.default_rng(3),
    ).confidence_interval
    # Ends of percentile intervals from 10,000 resamples have standard errors of some 3 % of the standard error itself.
    error = np.std(DIFFERENCES) / np.sqrt(len(DIFFERENCES))
    assert interval(DIFFERENCES) == pytest.approx((theirs.low, theirs.high), abs=0.15 * error)


def test_p_is_near_the_normal_one() -> None:
    mean, error = np.mean(DIFFERENCES), np.std(DIFFERENCES) / np.sqrt(len(DIFFERENCES))
    assert p_value(DIFFERENCES) == pytest.approx(2 * norm.sf(mean / error), rel=0.25)
    assert p_value([-one for one in DIFFERENCES]) == pytest.approx(p_value(DIFFERENCES), rel=0.1)


def test_the_ends() -> None:
    assert p_value([0.0, 0.0]) == 1
    assert p_value([0.1] * 50) == pytest.approx(2 / (RESAMPLES + 1))
    assert p_value([0.1, -0.1] * 20) == pytest.approx(1, abs=0.15)
    assert p_value(DIFFERENCES) == p_value(DIFFERENCES)
