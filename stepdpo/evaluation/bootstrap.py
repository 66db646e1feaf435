"""A paired bootstrap over problems: how sure a mean difference is. Pure; chance comes in as a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
AT_ONCE = 500
"""Resamples held at a time."""


def resampled_means(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> npt.NDArray[np.float64]:
    """Means of as many values as there are, drawn from them with repetition: one a resample."""
    given = np.asarray(values, np.float64)
    stream = np.random.Generator(np.random.Philox(seed))
    means = [
        given[stream.integers(len(given), size=(min(AT_ONCE, resamples - start), len(given)))].mean(1)
        for start in range(0, resamples, AT_ONCE)
    ]
    return np.concatenate(means)


def interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean."""
    low, high = np.quantile(resampled_means(values, seed=seed), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided: how often the mean of a resample lies on the other side of 0, half as often on it.

    Never below 2 / (resamples + 1), as no more can be known of so many.
    """
    if not any(differences):
        return 1.0
    means = resampled_means(differences, seed=seed)
    # Sums of equal differences in another order differ in their last digits: what rounds to 0 is 0.
    means = np.where(np.abs(means) < 1e-12, 0.0, means)
    tail = min(float((means < 0).sum()), float((means > 0).sum())) + float((means == 0).sum()) / 2
    return min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
