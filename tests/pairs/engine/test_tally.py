"""What is shown while pairs are made: rates of this process, counts of the whole run."""

from __future__ import annotations

from stepdpo.core.types import Preference
from stepdpo.pairs.engine.requests import ProblemResult, Result
from stepdpo.pairs.engine.tally import Tally

PAIR = Preference("q", "p", "c", "r")
ONE = ProblemResult("a", Result((PAIR, PAIR)), tokens=100, samples=8, graded=8, right=2)


def test_a_resumed_run_counts_all_and_rates_what_is_new() -> None:
    """4 new problems in 8 s are 0.5 a second; 400 tokens in 8 s are 50; 31 pairs were there before."""
    tally = Tally(pairs=31)
    for _ in range(4):
        tally.add(ONE)
    assert tally.figures(8.0) == "0.5 problems/s  39 pairs  25% right  50 tokens/s"


def test_nothing_graded_is_no_share() -> None:
    tally = Tally()
    tally.add(ProblemResult("a", Result()))
    assert tally.figures(2.0) == "0.5 problems/s  0 pairs  0 tokens/s"
