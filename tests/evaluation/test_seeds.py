"""The decoder under several seeds: which, and of which decoders."""

from __future__ import annotations

from typing import Any

import pytest

from stepdpo.core.errors import UserError
from stepdpo.evaluation.seeds import check_seeds, under_seeds
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.decoding.step_beam import StepBeam
from stepdpo.generation.decoding.vote import Vote


def test_how_many_or_which() -> None:
    assert under_seeds(Vote(n=3), None) == ((None, Vote(n=3)),)
    assert under_seeds(Vote(seed=7), 2) == ((7, Vote(seed=7)), (8, Vote(seed=8)))
    assert under_seeds(Vote(), [4, 2]) == ((4, Vote(seed=4)), (2, Vote(seed=2)))
    assert under_seeds(Greedy(), None) == ((None, Greedy()),)


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        (Greedy(), "decode=greedy draws nothing"),
        (StepBeam(beams=1, expand=1, temperature=0), "decode=step_beam at temperature 0 draws nothing"),
    ],
)
def test_a_decoder_that_draws_nothing(decode: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"seeds: {said}.*; leave seeds= out"):
        under_seeds(decode, 2)


@pytest.mark.parametrize("seeds", [0, -1, True, [], [1, 1], [-1], ["a"], "two", [True]])
def test_no_seeds(seeds: Any) -> None:
    with pytest.raises(ValueError, match="seeds: "):
        check_seeds(seeds)


@pytest.mark.parametrize("seeds", [None, 1, 5, [0], [3, 1]])
def test_good_seeds(seeds: Any) -> None:
    check_seeds(seeds)
