"""Retry with exponential backoff: when to send a request again. Pure; chance and the time of day come in."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

CEILING = 60.0
"""Longest wait of the backoff's own, in seconds: a server that comes back is not left idle for long."""
LONGEST = 600.0
"""Longest wait that a server may ask for, in seconds: a wrong header must not stop a run for a day."""


def may_pass(status: int) -> bool:
    """Whether the same request may succeed later."""
    # Timeout, conflict, too early, too many; everything else below 500 is about the request itself.
    return status in (408, 409, 425, 429) or status >= 500


def delay(attempt: int, backoff: float, wanted: float | None, chance: float) -> float:
    """Seconds to wait after attempt `attempt` (from 0): what the server asked for, or the backoff doubled each time.

    The backoff's own waits are shortened by up to a half, by `chance` in [0, 1), so that requests which failed together
    do not come back together.
    """
    if wanted is not None:
        return min(wanted, LONGEST)
    # The exponent is bounded too, since a float overflows at 2 ** 1024. Jitter only shortens: CEILING stays the most.
    return min(backoff * 2.0 ** min(attempt, 60), CEILING) * (1 - chance / 2)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
