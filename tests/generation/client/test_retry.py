"""When a request is sent again: by hand."""

from __future__ import annotations

import pytest

from stepdpo.generation.client.retry import CEILING, LONGEST, delay, may_pass, retry_after


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 0.5), (1, 1.0), (4, 8.0), (9, CEILING), (5000, CEILING)])
def test_waits_double(attempt: int, seconds: float) -> None:
    assert delay(attempt, 0.5, None, 0.0) == seconds
    assert delay(attempt, 0.5, None, 0.5) == 0.75 * seconds


def test_what_the_server_asks_for_goes_first() -> None:
    assert delay(3, 0.5, 7.0, 0.9) == 7.0
    assert delay(3, 0.5, 0.0, 0.9) == 0.0
    assert delay(0, 0.5, 86_400.0, 0.0) == LONGEST


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 70.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)
def test_the_header(value: str | None, seconds: float | None) -> None:
    """At half a minute past the epoch."""
    assert retry_after(value, now=30.0) == seconds


def test_which_statuses_pass() -> None:
    assert [s for s in (400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529) if may_pass(s)] == [
        408, 409, 425, 429, 500, 502, 503, 504, 529,
    ]  # fmt: skip
