"""What the exact checker says of pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.scripted import LONG, spoil

from benchmarks.oracle import verdict
from stepdpo.core.steps import prefix_before, split_steps
from stepdpo.core.types import Preference

HEAD, GOLD = split_steps(LONG.solution)
BAD = split_steps(spoil(LONG, 1))[1]
PREFIX = prefix_before(HEAD, GOLD, 1)


def after(steps: list[str], first: int = 1) -> str:
    return (HEAD + "".join(steps))[len(prefix_before(HEAD, GOLD, first)) :]


def step(steps: list[str]) -> str:
    return after(steps[:2]).rstrip("\n")


RIGHT = Preference(LONG.question, PREFIX, step(GOLD), step(BAD), "\n" + "".join(GOLD[2:]), "\n" + "".join(BAD[2:]))


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (RIGHT, (True, True)),
        (replace(RIGHT, chosen_rest="\n" + "".join(BAD[2:])), (True, True)),  # wrong after the chosen step only
        (replace(RIGHT, chosen=RIGHT.rejected, rejected=RIGHT.chosen), (False, False)),
        (replace(RIGHT, chosen=after(GOLD), chosen_rest="", rejected_rest=""), (True, True)),  # a whole remainder
        (replace(RIGHT, chosen=after(BAD), chosen_rest=""), (True, False)),
        (Preference(LONG.question, "", LONG.solution, HEAD + "".join(BAD[:2])), (True, True)),  # up to the wrong step
        (Preference(LONG.question, "", LONG.solution, HEAD + "".join(BAD[:3])), (False, True)),  # and one too far
        (Preference(LONG.question, "", spoil(LONG, 2), HEAD + BAD[0]), (False, False)),
    ],
)
def test_both_sides(preference: Preference, expected: tuple[bool, bool]) -> None:
    assert verdict(preference, LONG) == expected
