"""Accuracies by level, subject and number of steps."""

from __future__ import annotations

from typing import Any

from stepdpo.core.types import Attempt, Grade, Problem
from stepdpo.evaluation.breakdown import breakdown, in_words
from stepdpo.evaluation.statistics import wilson


def problem(number: int, solution: str = "", **meta: Any) -> Problem:
    return Problem(f"p{number}", f"{number}?", (str(number),), solution, meta)


def attempt(number: int, right: bool, seed: int | None = None) -> Attempt:
    grade = Grade("correct" if right else "wrong", "", "")
    return Attempt(f"p{number}", f"{number}?", (str(number),), "", 5, "eos", Grade("wrong", "", ""), grade, seed=seed)


def test_levels_and_subjects_of_math() -> None:
    """Level 10 comes after level 2, and a problem without one is in no row of the table."""
    problems = [
        problem(0, level="Level 10", type="Algebra"),
        problem(1, level="Level 2", type="Geometry"),
        problem(2, level="Level 2", type="Geometry"),
        problem(3, subject="Algebra"),
    ]
    tables = breakdown(problems, [attempt(n, n in (1, 3)) for n in range(4)])
    assert list(tables) == ["level", "subject"]
    assert list(tables["level"]) == ["2", "10"]
    low, high = wilson(1, 2)
    assert tables["level"]["2"] == {"n": 2, "accuracy": 0.5, "ci_low": low, "ci_high": high}
    assert tables["level"]["10"]["n"] == 1
    assert tables["subject"]["Algebra"]["accuracy"] == 0.5
    assert in_words(tables) == [
        "by level: 2 50.0 % of 2, 10 0.0 % of 1",
        "by subject: Algebra 50.0 % of 2, Geometry 50.0 % of 2",
    ]


def test_steps_of_the_miniature_and_of_gsm8k() -> None:
    problems = [problem(0, steps=3), problem(1, "One line.\n\nAnother.\nA third.\n#### 5"), problem(2, "One.\n#### 7")]
    tables = breakdown(problems, [attempt(n, n == 1) for n in range(3)])
    assert {kind: one["n"] for kind, one in tables["steps"].items()} == {"1": 1, "3": 2}
    assert tables["steps"]["3"]["accuracy"] == 0.5


def test_no_table_of_one_kind_or_of_none_or_of_names() -> None:
    alike = [problem(n, "Some text.", level="Level 5") for n in range(3)]
    assert breakdown(alike, [attempt(n, True) for n in range(3)]) == {}
    many = [problem(n, subject=f"topic {n}") for n in range(30)]
    assert breakdown(many, [attempt(n, True) for n in range(30)]) == {}
    unanswered = [problem(0, level=1), problem(1, level=2), problem(2, level=2)]
    assert breakdown(unanswered, [attempt(1, True), attempt(2, True)]) == {}


def test_a_problem_counts_once_under_several_seeds() -> None:
    problems = [problem(0, level=1), problem(1, level=2)]
    tables = breakdown(problems, [attempt(n, n == seed, seed) for n in range(2) for seed in range(2)])
    assert [(one["n"], one["accuracy"]) for one in tables["level"].values()] == [(1, 0.5), (1, 0.5)]
