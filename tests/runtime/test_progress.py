"""A count with figures: lines where there is no terminal, an eta where the total is known."""

from __future__ import annotations

import pytest

from stepdpo.runtime.progress import EVERY, Progress, clock


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """The second advance comes when it is time again; the first is silent."""
    for total, words in ((1000, "problem 7/1,000  four pairs  eta "), (None, "problem 7/?  four pairs")):
        with Progress("problem", total, 5) as progress:
            progress.advance(1, "two pairs")
            progress.last -= EVERY
            progress.advance(1, "four pairs")
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(words)


def test_the_eta_is_told_from_what_is_new() -> None:
    """4 new ones of 100 - 64 left, 8 s in: 2 s each, so 72 s are left; nothing new, or no total, tells nothing."""
    progress = Progress("problem", 100, 60)
    assert progress.eta() == ""
    progress.advance(4)
    progress.began -= 8.0
    assert progress.eta() == "eta 1:12"
    assert Progress("problem", None).eta() == ""


def test_hours_and_minutes() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 72, 7200, 3661)] == ["0:00", "1:00", "1:12", "2:00:00", "1:01:01"]


def test_a_summary_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("response", 10) as progress:
        progress.advance(5)
    progress.summary(50)
    progress.summary(0)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("5 responses, 50 tokens in ")


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("update", 2, enabled=False, every=0.0) as progress:
        progress.advance(1, "loss 1")
        progress.line("loss 1")
        progress.say("held-out")
    progress.summary(9)
    assert capsys.readouterr().out == ""
