"""sample, vote and best_of_n: the same draws, chosen from in three ways."""

from __future__ import annotations

from typing import Any

import pytest
from support.decoding import PROMPT, Writing, by, decode

from stepdpo.core.types import Completion
from stepdpo.generation.decoded import Cost
from stepdpo.generation.decoding.best_of_n import BestOfN
from stepdpo.generation.decoding.sample import Sample
from stepdpo.generation.decoding.vote import Vote
from stepdpo.generation.requests import Beginning
from stepdpo.generation.whole_responses import beginning

TEXTS = ["x a$", "no answer.$", "y b$", "z b$", "w a$", "v c$"]
SCORES = {"x a": 0.1, "no answer.": 0.9, "y b": 0.3, "z b": 0.2, "w a": 0.35, "v c": 0.3}


def scored(one: Beginning) -> float:
    return SCORES[one.text]


def writing() -> Writing:
    return Writing({PROMPT: TEXTS})


def shares(decoder: Any, score: Any = None) -> list[float]:
    (found,) = decode(decoder, writing(), score)
    return [response.share for response in found.responses]


def test_every_sample_counts_the_same() -> None:
    (found,) = decode(Sample(n=6), writing())
    assert [response.share for response in found.responses] == [1 / 6] * 6
    assert [response.group for response in found.responses] == [0, None, 2, 2, 0, 5]
    assert found.answer.text == "x a"
    assert found.cost == Cost(sum(2 + len(text) for text in TEXTS), 0, 1)


def test_a_tie_is_split_and_no_answer_is_no_vote() -> None:
    """Of six: two a, two b, one c, one without an answer."""
    assert shares(Vote(n=6)) == [0.5, 0, 0.5, 0, 0, 0]
    assert shares(Vote(n=4)) == [0, 0, 1, 0]


def test_nobody_has_an_answer() -> None:
    (found,) = decode(Vote(n=2), Writing({PROMPT: ["one.$", "two.$"]}))
    assert [response.share for response in found.responses] == [1, 0]


def test_a_weighted_vote() -> None:
    """a: 0.1 + 0.35; b: 0.3 + 0.2."""
    assert shares(Vote(n=6), by(scored)) == [0, 0, 1, 0, 0, 0]
    # As logarithms exp is added: a has e^0.1 + e^0.35 = 2.52, b e^0.3 + e^0.2 = 2.57; at ten times the scores a wins.
    assert shares(Vote(n=6), by(scored, log=True)) == [0, 0, 1, 0, 0, 0]
    assert shares(Vote(n=6), by(lambda one: 10 * scored(one), log=True)) == [1, 0, 0, 0, 0, 0]


def test_the_best_one_and_the_first_of_equals() -> None:
    (found,) = decode(BestOfN(n=6), writing(), by(scored))
    assert (found.answer.text, found.cost.scored, found.cost.calls) == ("no answer.", 60, 2)
    assert shares(BestOfN(n=6), by(lambda one: 0.5)) == [1, 0, 0, 0, 0, 0]
    assert shares(BestOfN(n=6), by(lambda one: -one.text.count("a"))) == [0, 0, 1, 0, 0, 0]


def test_of_one_all_are_a_sample_of_one() -> None:
    """The same request, so the same random stream; and the same answer."""
    drawn = {}
    for decoder in (Sample(n=1), Vote(n=1), BestOfN(n=1)):
        sampler = writing()
        (found,) = decode(decoder, sampler, by(scored))
        drawn[type(decoder)] = (sampler.asked, found.answer, [response.share for response in found.responses])
    assert drawn[Sample] == drawn[Vote] == drawn[BestOfN]


def test_a_response_by_its_steps() -> None:
    text = "Let's see.\nStep 1: 2 + 3 = 5.\nStep 2: 5 * 2 = 10.\nThe answer is: 10"
    found = beginning(Completion(text, 9, "eos"))
    assert found.steps == ("Let's see.\nStep 1: 2 + 3 = 5.", "\nStep 2: 5 * 2 = 10.\nThe answer is: 10")
    assert found.ended
    assert beginning(Completion("7", 1, "length")) == Beginning(("7",), ended=False)


@pytest.mark.parametrize(
    ("decoder", "settings", "fault"),
    [(Vote, {"n": 0}, "n must"), (Sample, {"temperature": 0.0}, "temperature"), (BestOfN, {"top_p": 0.0}, "top_p")],
)
def test_settings(decoder: Any, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        decoder(**settings)
