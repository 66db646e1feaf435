"""Which step is probably the first wrong one, given how many roll-outs from before each step were right.

The rate at which a prefix is solved is taken to be Beta distributed, one way before the first wrong step and another
after it; every step is as likely beforehand. Asking where the answer tells most is bisection with unreliable answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, exp, lgamma, log

SOUND, SPOILT = (1.0, 1.0), (0.05, 1.0)
"""Beta parameters of the solve rate of prefixes without a wrong step (anything, 1/2 in the mean) and with (1/21)."""


def first_error_posterior(right: Sequence[int], made: Sequence[int]) -> list[float]:
    """Probability of every step to be the first wrong one.

    Entry k counts roll-outs from before step k. Entry 0 says nothing: the beginning is right in any case.
    """
    sound = [_evidence(m, n, SOUND) for m, n in zip(right, made, strict=True)]
    spoilt = [_evidence(m, n, SPOILT) for m, n in zip(right, made, strict=True)]
    return _normal([sum(sound[: k + 1]) + sum(spoilt[k + 1 :]) for k in range(len(made))])


def most_informative(right: Sequence[int], made: Sequence[int], n: int, most: int) -> int | None:
    """Before which step `n` more roll-outs leave the least doubt; None where all have `most`."""
    now = first_error_posterior(right, made)
    open_ones = [k for k in range(1, len(made)) if made[k] + n <= most]
    return min(open_ones, key=lambda k: _doubt_after(now, k, right[k], made[k], n), default=None)


def _doubt_after(now: Sequence[float], at: int, right: int, made: int, n: int) -> float:
    """Expected entropy once `n` more were made before step `at`."""
    doubt = 0.0
    for more in range(n + 1):
        sound, spoilt = (
            comb(n, more) * exp(_evidence(right + more, made + n, rate) - _evidence(right, made, rate))
            for rate in (SOUND, SPOILT)
        )
        joint = [chance * (sound if k >= at else spoilt) for k, chance in enumerate(now)]
        total = sum(joint)
        doubt -= sum(part * log(part / total) for part in joint if part > 0)
    return doubt


def _evidence(right: int, made: int, rate: tuple[float, float]) -> float:
    """Log-probability of this sequence of outcomes, the rate integrated out."""
    a, b = rate
    return _log_beta(a + right, b + made - right) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _normal(logs: Sequence[float]) -> list[float]:
    parts = [exp(value - max(logs)) for value in logs]
    return [part / sum(parts) for part in parts]
