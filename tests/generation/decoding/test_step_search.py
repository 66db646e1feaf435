"""step_beam, dvts and mcts on a tree that is written out, with a scorer that is."""

from __future__ import annotations

from typing import Any

import pytest
from support.decoding import PROMPT, Writing, by, decode

from stepdpo.generation.decoding.dvts import Dvts
from stepdpo.generation.decoding.mcts import Mcts
from stepdpo.generation.decoding.step_beam import StepBeam
from stepdpo.generation.requests import Beginning

STEP = "\nStep"
TREE = {
    PROMPT: ["Step 1: a", "Step 1: b", "Step 1: c", "Step 1: a"],
    f"{PROMPT}Step 1: a{STEP}": [" 2: d$", " 2: e$"],
    f"{PROMPT}Step 1: b{STEP}": [" 2: f$", " 2: g"],
    f"{PROMPT}Step 1: b{STEP} 2: g{STEP}": [" 3: h$", " 3: i$"],
    f"{PROMPT}Step 1: c{STEP}": [" 2: j$", " 2: k$"],
}
VALUES = {"a": 0.5, "b": 0.7, "c": 0.6, "d": 0.2, "e": 0.3, "f": 0.4, "g": 0.9, "h": 0.1, "i": 0.8, "j": 0.55, "k": 0.6}


def value(one: Beginning) -> float:
    return VALUES[one.text[-1]]


def last(decoder: Any, score: Any = value) -> str:
    """The last letter of the answer."""
    (found,) = decode(decoder, Writing(TREE), by(score))
    return found.answer.text[-1]


def test_the_best_beginnings_go_on() -> None:
    """Two beams: b and c are kept of a, b, c, a; then g and k of f, g, j, k; k has ended and takes its beam along."""
    sampler = Writing(TREE)
    (found,) = decode(StepBeam(beams=2, expand=2), sampler, by(value))
    assert [prompts for prompts, _ in sampler.asked] == [
        [PROMPT],
        [f"{PROMPT}Step 1: b{STEP}", f"{PROMPT}Step 1: c{STEP}"],
        [f"{PROMPT}Step 1: b{STEP} 2: g{STEP}"],
    ]
    assert [params.n for _, params in sampler.asked] == [4, 2, 2]
    # Equal first steps are one: three are scored, then four, then two, ten tokens each.
    assert (found.cost.scored, found.cost.calls) == (90, 6)
    assert [(response.completion.text[-1], response.score, response.share) for response in found.responses] == [
        ("k", 0.6, 0.0),
        ("i", 0.8, 1.0),
    ]
    assert found.answer.text == f"Step 1: b{STEP} 2: g{STEP} 3: i"
    assert (found.answer.finish, found.answer.tokens) == ("eos", len(found.answer.text) + 1)


def test_a_constant_scorer_chooses_by_index() -> None:
    assert last(StepBeam(beams=1, expand=2), lambda one: 0.5) == "d"
    assert last(Dvts(trees=1, expand=2), lambda one: 0.5) == "d"


def test_one_tree_is_one_beam() -> None:
    for width in (1, 2, 3, 4):
        samplers = Writing(TREE), Writing(TREE)
        beam = decode(StepBeam(beams=1, expand=width), samplers[0], by(value))
        tree = decode(Dvts(trees=1, expand=width), samplers[1], by(value))
        assert beam == tree
        assert samplers[0].asked == samplers[1].asked


def test_trees_know_nothing_of_one_another() -> None:
    """Of four first steps drawn two by two, a, b and c, a: the first tree goes on with b, the second with c."""
    sampler = Writing(TREE)
    (found,) = decode(Dvts(trees=2, expand=2), sampler, by(value))
    assert sampler.asked[1][0] == [f"{PROMPT}Step 1: b{STEP}", f"{PROMPT}Step 1: c{STEP}"]
    assert [response.completion.text[-1] for response in found.responses] == ["i", "k"]
    assert found.answer.text[-1] == "i"


def test_searches_of_many_problems_share_calls() -> None:
    sampler = Writing({**TREE, "other": ["Step 1: z$"]})
    alone = decode(StepBeam(beams=1, expand=2), Writing(TREE), by(value))
    both = decode(StepBeam(beams=1, expand=2), sampler, by(lambda one: VALUES.get(one.text[-1], 0)), [PROMPT, "other"])
    assert both[:1] == alone
    assert sampler.asked[0][0] == [PROMPT, "other"]


def test_a_response_that_never_ends_is_cut() -> None:
    texts = {PROMPT: ["Step 1: a"], f"{PROMPT}Step 1: a{STEP}": [" 2: b"]}
    (found,) = decode(StepBeam(beams=1, expand=1, max_steps=2), Writing(texts), by(value))
    assert (found.answer.text, found.answer.finish) == (f"Step 1: a{STEP} 2: b", "length")
    (found,) = decode(StepBeam(beams=1, expand=1, max_tokens=12), Writing(texts), by(value))
    assert (found.answer.text, found.answer.finish) == ("Step 1: a", "length")


def test_what_ended_goes_before_what_was_cut() -> None:
    texts = {PROMPT: ["Step 1: b", "Step 1: a$"]}
    (found,) = decode(StepBeam(beams=2, expand=1, max_steps=1), Writing(texts), by(value))
    assert found.answer.text == "Step 1: a"


def test_a_tree_search_by_hand() -> None:
    """Values are 2 p - 1. Every node has two children, priors are alike, and with no exploring term Q alone leads.

    1: the question is expanded: a 0, b 0.4. 2: b is backed up and expanded: f ended, -0.2 at once, and g 0.8. Q of b is
    now (0.4 - 0.2) / 2 = 0.1, still above a's 0. 3: g is backed up and expanded: h -0.8 and i 0.6, both ended. All
    below b is closed. From the question by Q: b has (0.4 - 0.2 + 0.8 - 0.8 + 0.6) / 5 = 0.16; below it g has
    (0.8 - 0.8 + 0.6) / 3 = 0.2 and f -0.2; below g it is i.
    """
    sampler = Writing(TREE)
    (found,) = decode(Mcts(simulations=3, expand=2, weight=0.0), sampler, by(value))
    assert [prompts for prompts, _ in sampler.asked] == [
        [PROMPT],
        [f"{PROMPT}Step 1: b{STEP}"],
        [f"{PROMPT}Step 1: b{STEP} 2: g{STEP}"],
    ]
    assert found.answer.text[-1] == "i"
    assert found.cost.calls == 6


def test_a_tree_that_is_all_written_is_searched_no_more() -> None:
    sampler = Writing({PROMPT: ["Step 1: a$", "Step 1: b$"]})
    (found,) = decode(Mcts(simulations=40, expand=2), sampler, by(value))
    assert (len(sampler.asked), found.answer.text[-1]) == (1, "b")


def test_a_search_that_came_to_no_end_writes_its_best_beginning_out() -> None:
    sampler = Writing({**TREE, f"{PROMPT}Step 1: b{STEP}": [" 2: g\nStep 3: i$"]})
    (found,) = decode(Mcts(simulations=1, expand=3), sampler, by(value))
    assert found.answer.text == f"Step 1: b{STEP} 2: g{STEP} 3: i"
    assert sampler.asked[-1][1].temperature == 0


@pytest.mark.parametrize(
    ("decoder", "settings", "fault"),
    [
        (StepBeam, {"beams": 0}, "beams"),
        (StepBeam, {"temperature": 0.0}, "temperature"),
        (Dvts, {"trees": 0}, "trees"),
        (Mcts, {"simulations": 0}, "simulations"),
    ],
)
def test_settings(decoder: Any, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        decoder(**settings)
    StepBeam(beams=1, expand=1, temperature=0.0)
