"""Long stories: what is told is what is worked, and a mistake is carried on."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from stepdpo.core.steps import split_steps
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.long_story import LARGEST, Family, LongStory, Move
from stepdpo.tinymath.problems import SPLITS, Stories, owner, problems, stories
from stepdpo.tinymath.story import Equation

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
PENS = LongStory(
    sentences=("Tom has 40 pens.", "Ann gives Tom 15 pens.", "Ann brings 3 boxes of 8 pens.", "How many?"),
    moves=(
        Move("+", 15, family=Family.gives, mistaken=("-", 15)),
        Move("*", 8, left=3, family=Family.brings, mistaken=("+", 8), boxes="boxes"),
        Move("+", None),
    ),
    start=40,
    who="Tom",
    friend="Ann",
    things="pens",
)
"""40 + 15 = 55; 3 * 8 = 24; 55 + 24 = 79."""


def told(equations: tuple[Equation, ...] | None) -> list[str]:
    assert equations is not None
    return [str(equation) for equation in equations]


def test_the_right_working() -> None:
    assert told(PENS.equations) == ["40 + 15 = 55", "3 * 8 = 24", "55 + 24 = 79"]
    assert PENS.solution == (
        "Let's think step by step.\nStep 1: Tom has 40 + 15 = 55 pens\nStep 2: The boxes hold 3 * 8 = 24 pens\n"
        "Step 3: Tom has 55 + 24 = 79 pens\nThe answer is: 79"
    )


def test_mistakes_are_carried_on() -> None:
    assert told(PENS.work(mistaken=[0])) == ["40 - 15 = 25", "3 * 8 = 24", "25 + 24 = 49"]
    assert told(PENS.work(mistaken=[1])) == ["40 + 15 = 55", "3 + 8 = 11", "55 + 11 = 66"]
    # The ten of 3 + 8 = 11 is forgotten too: 1 is out of bounds.
    assert PENS.work(mistaken=[1], forgotten=[1]) is None


def test_a_forgotten_carry_is_ten_less_a_forgotten_borrow_ten_more() -> None:
    assert str(Equation(27, "+", 15, forgotten=True)) == "27 + 15 = 32"
    assert str(Equation(42, "-", 15, forgotten=True)) == "42 - 15 = 37"


@pytest.mark.parametrize(
    ("equation", "carries"),
    [
        (Equation(27, "+", 15), True),
        (Equation(21, "+", 18), False),
        (Equation(25, "+", 5), True),
        (Equation(42, "-", 15), True),
        (Equation(45, "-", 15), False),
        (Equation(7, "*", 8), False),
        (Equation(56, "/", 8), False),
    ],
)
def test_what_can_be_forgotten(equation: Equation, carries: bool) -> None:
    assert equation.carries is carries


@pytest.mark.parametrize("wording", ["", "Then "])
def test_wordings(wording: str) -> None:
    steps = PENS.say(PENS.equations, [wording] * 3)
    assert steps[1] == ("Then the boxes hold 3 * 8 = 24 pens" if wording else "The boxes hold 3 * 8 = 24 pens")


def test_what_leaves_the_bounds_is_no_working() -> None:
    """15 less than 10 is no number of pens; 7 of them are not shared by 2; 60 twice is more than 99."""
    for start, move in ((10, Move("-", 15)), (7, Move("/", 2)), (60, Move("*", 2)), (5, Move("-", 4))):
        assert LongStory(("",), (move,), start, "Tom", "Ann", "pens").work() is None


@pytest.mark.parametrize("split", SPLITS)
def test_told_stories(split: str) -> None:
    """Every number of the working is given or worked out, stays in its bounds, and the checker finds no error."""
    checker = TinymathChecker()
    for problem in problems(split, 300, kind=Stories.long):
        _, steps = split_steps(problem.solution)
        assert 5 <= len(steps) <= 8
        assert checker.first_error(problem, steps) is None
        known = set(re.findall(r"\d+", problem.question))
        for left, _, right, result in EQUATION.findall(problem.solution):
            assert {left, right} <= known
            assert 1 < int(result) <= LARGEST
            known.add(result)
        assert problem.solution.endswith(f"\nThe answer is: {result}")
        assert owner(problem.question) == split


def test_every_kind_of_event_is_told() -> None:
    told = islice(stories(Stories.long, "train", 0), 300)
    families = [move.family for story in told if isinstance(story, LongStory) for move in story.moves]
    assert set(families) == {None, *Family}
    assert all(families.count(family) > 50 for family in Family)


def test_names() -> None:
    assert problems("test", 3, kind=Stories.long)[2].id == "tinymath-long-test-000002"
    assert problems("train", 1, seed=3, kind=Stories.long)[0].id == "tinymath-long-train-seed3-000000"
