"""ProcessBench's F1 and the threshold that it is told at, on tables worked out by hand."""

from __future__ import annotations

import pytest

from stepdpo.evaluation.first_error import (
    NO_ERROR,
    UNTOLD,
    ScoredSolution,
    best_threshold,
    figures,
    first_below,
    first_error_f1,
    held_out,
    predictions,
)


def test_first_errors_are_named_exactly_or_not_at_all() -> None:
    """Of three wrong solutions one is named, of two right ones one is passed: 2 (1/3)(1/2) / (1/3 + 1/2)."""
    f1, named, passed = first_error_f1([0, 2, -1, -1, 1], [0, 1, 3, -1, -1])
    assert (named, passed) == (1 / 3, 1 / 2)
    assert f1 == pytest.approx(0.4)
    assert first_error_f1([-1, -1], [0, 1])[0] == 0.0  # nothing right of either kind is no division by 0
    assert first_error_f1([-1] * 4, [1, 1, -1, -1])[0] == 0.0  # whoever never objects
    assert first_error_f1([0] * 4, [1, 1, -1, -1])[0] == 0.0  # whoever always objects to the first step


def test_the_first_step_below_the_threshold_is_named() -> None:
    assert first_below([0.9, 0.4, 0.1], 0.5) == 1
    assert first_below([0.9, 0.5], 0.5) == NO_ERROR
    # What nothing could be said of is wrong, whatever the truth: it equals no label.
    assert predictions([ScoredSolution((), NO_ERROR), ScoredSolution((1.0, 0.2), 1)], 0.5) == [UNTOLD, 1]


def test_the_threshold_of_the_largest_f1() -> None:
    """At .6 both wrong ones are named and the right one is passed; at .2 and .5 one is missed, at .7 all object."""
    solutions = [
        ScoredSolution((0.9, 0.5), 1), ScoredSolution((0.2, 0.1), 0), ScoredSolution((0.7, 0.6), NO_ERROR),
    ]  # fmt: skip
    assert best_threshold(solutions) == 0.6
    with pytest.raises(ValueError, match="no scores"):
        best_threshold([ScoredSolution((), 0)])


def test_figures_are_plain_means_of_the_subsets() -> None:
    """a: named 2 of 2, passed 1 of 1, F1 1. b: named 1 of 2, passed 0 of 1, F1 0. The means: .75, .5, .5.

    Beginnings without a wrong step have 1, 1, 1 and .3, those with one 0, .4, 1, .2 and .1: of the 4 * 5 pairs each 1
    lies above four and level with one, .3 above three.
    """
    solutions = [
        ScoredSolution((1.0, 0.0), 1, "a"),
        ScoredSolution((0.4,), 0, "a"),
        ScoredSolution((1.0, 1.0), NO_ERROR, "a"),
        ScoredSolution((1.0, 0.2), 0, "b"),
        ScoredSolution((0.3,), NO_ERROR, "b"),
        ScoredSolution((0.1,), 0, "b"),
    ]
    found = figures(solutions, 0.5)
    a, b = found["subsets"]["a"], found["subsets"]["b"]
    assert (a["n"], a["wrong"], a["named"], a["passed"]) == (3, 2, 1.0, 1.0)
    assert (b["n"], b["wrong"], b["named"], b["passed"]) == (3, 2, 0.5, 0.0)
    assert (found["n"], found["named"], found["passed"], found["f1"]) == (6, 0.75, 0.5, 0.5)
    assert found["always_first"] == (1 / 2 + 2 / 2) / 2
    assert found["auc"] == pytest.approx((3 * 4.5 + 3) / 20)
    assert found["untold"] == 0


def test_nothing_is_told_of_an_area_without_both_kinds() -> None:
    assert figures([ScoredSolution((1.0,), NO_ERROR)], 0.5)["auc"] is None


def test_a_problem_is_held_out_whole_and_the_share_is_met() -> None:
    questions = [f"Question {n}" for n in range(2000)]
    share = sum(held_out(question, 0.25, 0) for question in questions) / len(questions)
    assert share == pytest.approx(0.25, abs=0.04)  # four standard deviations of 2,000 draws
    assert [held_out(q, 0.25, 0) for q in questions] == [held_out(q, 0.25, 0) for q in questions]
    assert [held_out(q, 0.25, 0) for q in questions] != [held_out(q, 0.25, 1) for q in questions]
    assert not any(held_out(question, 0.0, 0) for question in questions)
