"""Where the mistakes of spoilt solutions lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.scripted import LONG, spoil

from benchmarks.controlled import place, sides, tries
from stepdpo.core.steps import cut_step, prefix_before, split_steps
from stepdpo.core.types import Preference

HEAD, GOLD = split_steps(LONG.solution)


@pytest.mark.parametrize(
    ("error", "k", "expected"),
    [(None, 1, "none"), (1, 1, "shared"), (2, 1, "k + 1"), (4, 1, "k + 3"), (5, 1, "later")],
)
def test_places_are_counted_from_the_last_shared_step(error: int | None, k: int, expected: str) -> None:
    assert place(error, k) == expected


def test_tries() -> None:
    assert [tries(n) for n in (1, 4, 5, 8, 9)] == ["1", "4", "5 to 8", "5 to 8", "more"]


def cut(index: int, wrong: int, k: int) -> Preference:
    prefix = prefix_before(HEAD, GOLD, index)
    chosen, rest = cut_step(LONG.solution[len(prefix) :])
    rejected, more = cut_step(spoil(LONG, wrong)[len(prefix) :])
    return Preference(LONG.question, prefix, chosen, rejected, rest, more, meta={"k": k, "step": index, "tries": 2})


def test_a_pair_is_looked_at() -> None:
    pair = cut(2, wrong=2, k=0)
    found = {"tries": "2", "place": "k + 2", "at cut": True, "cut later": True, "chosen right": True}
    assert sides(pair, LONG) == found
    assert sides(replace(pair, meta={**pair.meta, "k": 1}), LONG) == {**found, "place": "k + 1", "cut later": False}
    assert sides(cut(1, wrong=2, k=0), LONG) == {**found, "at cut": False, "cut later": False}
    swapped = replace(pair, chosen=pair.rejected, rejected=pair.chosen, chosen_rest=pair.rejected_rest)
    assert sides(swapped, LONG)["chosen right"] is False
