"""Demonstrations go wrong where their habits are, and the checker finds each first mistake where it was made."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from stepdpo.core.steps import split_steps
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.demonstrations import demonstrations
from stepdpo.tinymath.habits import Habits, entropy
from stepdpo.tinymath.problems import SPLITS
from stepdpo.tinymath.solutions import TinymathDemonstrations

NEVER = Habits(mistaken=0, mistaken_late=0, forgotten=0)
ALWAYS = Habits(mistaken=1, mistaken_late=1, forgotten=1)


FEW = [pytest.param(split, 150, id=f"{split}-few") for split in SPLITS]
MANY = [
    pytest.param(
        split, 2500, id=f"{split}-many", marks=[pytest.mark.slow, *([pytest.mark.exhaustive] if number else [])]
    )
    for number, split in enumerate(SPLITS)
]


@pytest.mark.parametrize(("split", "stories"), [*FEW, *MANY])
@pytest.mark.parametrize("habits", [Habits(), ALWAYS], ids=["some", "always"])
def test_the_first_error_is_found_where_the_demonstration_slipped(split: str, habits: Habits, stories: int) -> None:
    """So every habit's wrong step is wrong, and every step before it is right."""
    checker = TinymathChecker()
    for problem, shown in demonstrations(split, stories, 0, habits):
        _, steps = split_steps(shown.text)
        assert checker.first_error(problem, split_steps(problem.solution)[1]) is None
        assert checker.first_error(problem, steps) == shown.first_error


def test_habits_are_met_often() -> None:
    """Nearly every story has an event to mistake, most have a carry to forget."""
    seen: Counter[str] = Counter()
    for _, shown in demonstrations("test", 400, 0, ALWAYS):
        seen["mistaken"] += bool(shown.mistaken)
        seen["forgotten"] += bool(shown.forgotten)
    assert seen["mistaken"] > 300
    assert seen["forgotten"] > 100


def test_without_habits_they_are_right() -> None:
    for problem, shown in demonstrations("train", 100, 0, NEVER):
        assert shown.first_error is None
        assert shown.text.endswith(f"The answer is: {problem.answers[0]}")
        # Nothing is left to chance but the two wordings of each step.
        assert shown.nats == pytest.approx(problem.meta["steps"] * math.log(2))


def test_late_moves_are_mistaken_more_often() -> None:
    """From the fifth step on, at the rates that were asked for; a mistake that would leave the bounds is not made."""
    early = Habits(mistaken=0, mistaken_late=1, forgotten=0)
    for _, shown in demonstrations("train", 200, 0, early):
        assert all(move >= early.late for move in shown.mistaken)
    moves = Counter[bool]()
    for _, shown in demonstrations("train", 200, 0, Habits(mistaken=1, mistaken_late=0, forgotten=0)):
        moves.update(move >= 4 for move in shown.mistaken)
    assert moves[False] > 100
    assert not moves[True]


def test_no_carry_is_forgotten_in_the_first_step() -> None:
    shown = [one for _, one in demonstrations("train", 300, 0, Habits(mistaken=0, mistaken_late=0, forgotten=1))]
    assert not any(0 in one.forgotten for one in shown)
    assert sum(len(one.forgotten) for one in shown) > 200


def test_the_same_text_every_time() -> None:
    first = [shown.text for _, shown in demonstrations("train", 30, 1, Habits())]
    assert first == [shown.text for _, shown in demonstrations("train", 30, 1, Habits())]
    assert first != [shown.text for _, shown in demonstrations("train", 30, 2, Habits())]
    assert first[:10] == [shown.text for _, shown in demonstrations("train", 10, 1, Habits())]


@pytest.mark.parametrize(("chance", "nats"), [(0.0, 0.0), (1.0, 0.0), (0.5, math.log(2))])
def test_entropy(chance: float, nats: float) -> None:
    assert entropy(chance) == pytest.approx(nats)


@pytest.mark.parametrize("name", ["mistaken", "mistaken_late", "forgotten"])
def test_chances_are_probabilities(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\]"):
        Habits(**{name: 1.5})


def test_as_a_data_set() -> None:
    loaded = TinymathDemonstrations(count=40, heldout=8).load()
    assert (len(loaded.preferences), len(loaded.heldout)) == (32, 8)
    assert all(one.whole and not one.rejected for one in loaded.preferences)
    wanted = {shown.text for _, shown in demonstrations("train", 40, 0, Habits())}
    assert {one.chosen for one in (*loaded.preferences, *loaded.heldout)} == wanted


def test_its_fingerprint_is_of_the_habits_too() -> None:
    assert TinymathDemonstrations().fingerprint() == TinymathDemonstrations().fingerprint()
    assert TinymathDemonstrations().fingerprint() != TinymathDemonstrations(habits=NEVER).fingerprint()
