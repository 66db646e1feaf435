"""Kinds of mistakes: what habits are known to have done is what is found, and nothing else."""

from __future__ import annotations

import pytest

from stepdpo.core.types import MistakeCount, Problem
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.demonstrations import demonstrations
from stepdpo.tinymath.habits import Habits
from stepdpo.tinymath.mistakes import MISTAKABLE, Kind, count_mistakes
from stepdpo.tinymath.problems import SPLITS, Stories, problems
from stepdpo.tinymath.working import gold_equations

ALWAYS = Habits(mistaken=1, mistaken_late=1, forgotten=1)
PENS = Problem(
    id="p",
    question="Tom has 40 pens. Ann gives Tom 15 pens. Ann brings 3 boxes of 8 pens. How many pens does Tom have now?",
    answers=("79",),
    solution=(
        "Let's think step by step.\nStep 1: Tom has 40 + 15 = 55 pens\nStep 2: The boxes hold 3 * 8 = 24 pens\n"
        "Step 3: Tom has 55 + 24 = 79 pens\nThe answer is: 79"
    ),
    meta={MISTAKABLE: ["40 - 15", "3 + 8", None]},
)
"""Two events to mistake; no carry, which EGGS has."""
EGGS = Problem(
    id="e",
    question="Eva has 27 eggs. Ben gives Eva 15 eggs. Eva loses 15 eggs. How many eggs does Eva have now?",
    answers=("27",),
    solution="Step 1: Eva has 27 + 15 = 42 eggs\nStep 2: Eva has 42 - 15 = 27 eggs\nThe answer is: 27",
    meta={MISTAKABLE: ["27 - 15", None]},
)


def counts(problem: Problem, *steps: str) -> dict[str, tuple[int, int]]:
    text = "\n" + "\n".join(f"Step {k}: {step}" for k, step in enumerate(steps, start=1))
    return {kind: (count.made, count.reached) for kind, count in count_mistakes(problem, text).items()}


@pytest.mark.parametrize("habits", [Habits(), ALWAYS], ids=["some", "always"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_first_slip_of_a_demonstration_is_found_with_its_kind(split: str, habits: Habits) -> None:
    """Its step is the move of the same number, so the moves reached are those up to it."""
    found = set()
    for problem, shown in demonstrations(split, 200, 0, habits):
        at = shown.first_error
        kind = None if at is None else Kind.mistaken if at in shown.mistaken else Kind.forgotten
        reached = range(len(gold_equations(problem)) if at is None else at + 1)
        told = count_mistakes(problem, "\n" + shown.text)
        assert {name: count.made for name, count in told.items()} == {one: int(one is kind) for one in Kind}
        assert told[Kind.other].reached == len(reached)
        assert told[Kind.mistaken].reached == sum(problem.meta[MISTAKABLE][k] is not None for k in reached)
        assert told[Kind.forgotten].reached == sum(gold_equations(problem)[k].carries for k in reached)
        found.add(kind)
    assert found >= {Kind.mistaken, Kind.forgotten}


@pytest.mark.parametrize("split", SPLITS)
def test_right_solutions_have_none(split: str) -> None:
    for problem in problems(split, 200, kind=Stories.long):
        told = count_mistakes(problem, problem.solution)
        assert not any(count.made for count in told.values())
        assert told[Kind.other].reached == problem.meta["steps"]


@pytest.mark.parametrize(
    ("steps", "mistaken", "other"),
    [
        ((), (0, 0), (0, 0)),
        (("Tom has 40 + 15 = 55 pens",), (0, 1), (0, 1)),
        (("Tom has 40 - 15 = 25 pens",), (1, 1), (0, 1)),
        (("Tom has 40 - 15 = 35 pens",), (1, 1), (0, 1)),  # and that is worked wrongly too
        (("Tom has 40 + 15 = 55 pens", "They hold 8 + 3 = 11 pens"), (1, 2), (0, 2)),
        (("Tom has 40 + 15 = 55 pens", "They hold 3 * 8 = 26 pens"), (0, 2), (1, 2)),
        (("Tom has 40 + 15 = 55 pens", "Tom has 55 + 8 = 63 pens", "3 + 8 = 11"), (0, 2), (1, 2)),  # the first counts
        (("They hold 3 * 8 = 24 pens", "Tom has 40 - 15 = 25 pens"), (1, 2), (0, 2)),  # boxes may come first
        (("3 * 8 = 24 and 40 + 15 = 55", "55 - 24 = 31"), (0, 2), (1, 3)),  # both worked in one step
        (("Tom has 40 + 15 = 55 pens\nThe answer is: 55",), (0, 2), (1, 2)),  # where the boxes were due
        (("40 + 15 = 55", "3 * 8 = 24", "55 + 24 = 79\nThe answer is: 97"), (0, 2), (1, 3)),  # worked, misreported
        (("Tom has many pens",), (0, 1), (1, 1)),
    ],
)
def test_kinds(steps: tuple[str, ...], mistaken: tuple[int, int], other: tuple[int, int]) -> None:
    assert counts(PENS, *steps) == {Kind.mistaken: mistaken, Kind.forgotten: (0, 0), Kind.other: other}


@pytest.mark.parametrize(
    ("steps", "forgotten", "other"),
    [
        (("27 + 15 = 32",), (1, 1), (0, 1)),
        (("15 + 27 = 32",), (1, 1), (0, 1)),
        (("27 + 15 = 52",), (0, 1), (1, 1)),  # off by ten the other way
        (("27 + 15 = 42", "42 - 15 = 37"), (1, 2), (0, 2)),
        (("27 + 15 = 42", "42 - 15 = 17"), (0, 2), (1, 2)),
    ],
)
def test_carries(steps: tuple[str, ...], forgotten: tuple[int, int], other: tuple[int, int]) -> None:
    assert counts(EGGS, *steps) == {Kind.mistaken: (0, 1), Kind.forgotten: forgotten, Kind.other: other}


def test_an_event_mistaken_and_its_carry_forgotten_is_an_event_mistaken() -> None:
    taken = Problem("t", "Eva has 42 eggs. Then Ben gets 19 eggs from Eva.", ("23",), "Step 1: 42 - 19 = 23")
    taken = Problem(taken.id, taken.question, taken.answers, taken.solution, {MISTAKABLE: ["42 + 19"]})
    assert counts(taken, "42 + 19 = 51")[Kind.mistaken] == (1, 1)


def test_short_stories_say_nothing() -> None:
    for problem in problems("test", 20):
        assert MISTAKABLE not in problem.meta
        assert TinymathChecker().mistakes(problem, problem.solution) == {}


def test_the_checker_counts_them() -> None:
    told = TinymathChecker().mistakes(EGGS, "Step 1: Eva has 27 + 15 = 32 eggs")
    assert told[Kind.forgotten] == MistakeCount(made=1, reached=1)
