"""The posterior of the first wrong step, given how many roll-outs from before each step were right.

The rate at which a prefix is solved is taken to be Beta distributed, one way before the first wrong step and another
after it; the prior over steps is uniform. Rolling out where that tells most is bisection with unreliable answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, exp, lgamma, log

# Not 0 after a wrong step: a weak model now and then undoes a mistake by another one (docs/pairs.md), and one such
# success must not clear a step. Most of the mass of Beta(0.05, 1) lies next to 0, as it is rare.
SOUND, SPOILT = (1.0, 1.0), (0.05, 1.0)
"""Beta parameters of the solve rate of prefixes without a wrong step (anything, 1/2 in the mean) and with (1/21)."""


def first_error_posterior(right: Sequence[int], rollouts: Sequence[int]) -> list[float]:
    """Probability of every step to be the first wrong one.

    Entry k counts roll-outs from before step k. Entry 0 says nothing: the beginning is right in any case.
    """
    sound = [_log_marginal(m, n, SOUND) for m, n in zip(right, rollouts, strict=True)]
    spoilt = [_log_marginal(m, n, SPOILT) for m, n in zip(right, rollouts, strict=True)]
    # If step k is the first wrong one, the prefixes before steps 0 to k hold no wrong step, and the later ones hold it.
    return _normalised([sum(sound[: k + 1]) + sum(spoilt[k + 1 :]) for k in range(len(rollouts))])


def most_informative(right: Sequence[int], rollouts: Sequence[int], n: int, most: int) -> int | None:
    """Before which step `n` more roll-outs leave the least expected entropy; None where all have `most`."""
    now = first_error_posterior(right, rollouts)
    open_ones = [k for k in range(1, len(rollouts)) if rollouts[k] + n <= most]
    return min(open_ones, key=lambda k: _expected_entropy(now, k, right[k], rollouts[k], n), default=None)


def _expected_entropy(now: Sequence[float], at: int, right: int, rollouts: int, n: int) -> float:
    """Of the posterior, once `n` more roll-outs were made before step `at`: over what may come of them."""
    entropy = 0.0
    for more in range(n + 1):
        sound, spoilt = (
            comb(n, more) * exp(_log_marginal(right + more, rollouts + n, rate) - _log_marginal(right, rollouts, rate))
            for rate in (SOUND, SPOILT)
        )
        joint = [chance * (sound if k >= at else spoilt) for k, chance in enumerate(now)]
        total = sum(joint)
        entropy -= sum(part * log(part / total) for part in joint if part > 0)
    return entropy


def _log_marginal(right: int, rollouts: int, rate: tuple[float, float]) -> float:
    """Log-probability of this sequence of outcomes, the rate integrated out (the marginal likelihood)."""
    a, b = rate
    return _log_beta(a + right, b + rollouts - right) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _normalised(logs: Sequence[float]) -> list[float]:
    parts = [exp(value - max(logs)) for value in logs]
    return [part / sum(parts) for part in parts]
