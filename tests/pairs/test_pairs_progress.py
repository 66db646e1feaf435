"""What is shown while pairs are made: rates of this process, counts of the whole run."""

from __future__ import annotations

import pytest

from stepdpo.core.types import Preference
from stepdpo.pairs.engine.progress import EVERY, Progress
from stepdpo.pairs.engine.requests import ProblemResult, Result

PAIR = Preference("q", "p", "c", "r")
ONE = ProblemResult("a", Result((PAIR, PAIR)), tokens=100, samples=8, graded=8, right=2)


def test_a_resumed_run_counts_all_and_rates_what_is_new() -> None:
    """4 new problems in 8 s are 0.5 a second; 400 tokens in 8 s are 50; the other 100 - 64 take 72 s."""
    progress = Progress(100, 60, pairs=31)
    for _ in range(4):
        progress.advance(ONE)
    assert progress.done == 64
    assert progress.figures(8.0) == "0.5 problems/s  39 pairs  25% right  50 tokens/s"
    assert progress.eta(8.0) == "eta 1:12"
    assert progress.eta(8.0 * 100) == "eta 2:00:00"


def test_where_the_number_is_unknown_there_is_no_eta() -> None:
    progress = Progress(None)
    assert progress.eta(1.0) == ""
    progress.advance(ProblemResult("a", Result()))
    assert progress.eta(1.0) == ""
    assert progress.figures(2.0) == "0.5 problems/s  0 pairs  0 tokens/s"


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    for total, words in ((10, "problem 7/10"), (None, "problem 7/?")):
        with Progress(total, 5) as progress:
            progress.advance(ONE)
            progress.last -= EVERY
            progress.advance(ONE)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(words)
        assert "4 pairs  25% right" in line
        assert ("eta 0:00" in line) == (total is not None)
