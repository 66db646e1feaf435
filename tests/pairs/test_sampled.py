"""Whole solutions, right against wrong."""

from __future__ import annotations

import pytest
from support.scripted import LONG, Scripted, context, opened, preferences, run, spoil

from stepdpo.data.level import Instance
from stepdpo.pairs.sampled import Sampled

RIGHT, WRONG, WORSE = LONG.solution, spoil(LONG, 1), spoil(LONG, 2)


def test_a_right_solution_meets_a_wrong_one() -> None:
    sampler = Scripted({opened(LONG): ["\n" + text for text in (WRONG, RIGHT, RIGHT, WORSE)]})
    (finished,) = run(Sampled(), sampler, [LONG], context(4))
    (preference,) = finished.result.preferences
    assert (preference.prefix, preference.chosen, preference.rejected, preference.whole) == ("", RIGHT, WRONG, True)
    assert preference.meta["solve_rate"] == 0.5
    pair = Instance()(preference)
    assert (pair.chosen_ends, pair.rejected_ends) == (True, True)


def test_equal_texts_are_paired_once() -> None:
    """Two right samples of one text and three wrong ones of two texts: one pair."""
    texts = ["\n" + text for text in (RIGHT, RIGHT, WRONG, WRONG, WORSE)]
    found = preferences(run(Sampled(max_pairs_per_problem=9), Scripted({opened(LONG): texts}), [LONG], context(5)))
    assert [(p.chosen, p.rejected) for p in found] == [(RIGHT, WRONG)]


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [((WRONG, WORSE), "no right sample"), ((RIGHT, RIGHT), "no wrong sample")],
)
def test_why_a_problem_gives_no_pair(texts: tuple[str, ...], outcome: str) -> None:
    (finished,) = run(Sampled(), Scripted({opened(LONG): ["\n" + t for t in texts]}), [LONG])
    assert (finished.result.preferences, finished.result.outcome) == ((), outcome)


def test_problems_too_easy_or_too_hard_are_left_out() -> None:
    sampler = Scripted({opened(LONG): ["\n" + t for t in (RIGHT, RIGHT, RIGHT, WRONG)]})
    (finished,) = run(Sampled(max_solve_rate=0.7), sampler, [LONG], context(4))
    assert finished.result.outcome == "solve rate outside the window"
    (finished,) = run(Sampled(max_solve_rate=0.75), sampler, [LONG], context(4))
    assert len(finished.result.preferences) == 1
