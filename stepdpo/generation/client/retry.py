"""When to send a request again. Pure functions: chance and the time of day come in."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

CEILING = 60.0
"""Longest wait of the backoff's own, in seconds."""
LONGEST = 600.0
"""Longest wait that a server may ask for."""


def passing(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in (408, 409, 425, 429) or status >= 500


def delay(attempt: int, backoff: float, asked: float | None, chance: float) -> float:
    """Seconds to wait after attempt `attempt` (from 0): what the server asked for, or the backoff doubled each time.

    The backoff's own waits are shortened by up to a half, by `chance` in [0, 1), so that requests which failed together
    do not come back together.
    """
    if asked is not None:
        return min(asked, LONGEST)
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
