"""Implicit rewards against stock models token by token; their sums are the margin of the loss; values as they are."""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from support import tiny

from stepdpo.algo.dpo import DPO
from stepdpo.core.types import Mark, Pair
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.models.attention.registry import register
from stepdpo.models.implicit_rewards import ResponseRewards, implicit_rewards
from stepdpo.models.loss_inputs import pair_scores
from stepdpo.models.scorer import Scorer
from stepdpo.models.value_head import ValueHead
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.step_scores import Squash, ValueHeadSpec
from stepdpo.tokens.token_tree import build_tree
from stepdpo.tokens.tokenization import tokenize

BETA = 0.3
CPU = torch.device("cpu")
LEVELS = {"step": Step(), "instance": Instance(), "prefix read": Instance(prefix=Prefix.prompt)}


@cache
def model(moved: bool, attention: str) -> Any:
    made = tiny.model(attention).eval()
    if moved:
        tiny.perturb(made)
    return made


@cache
def stock_model(moved: bool) -> Any:
    """A stock attention, in fp64."""
    return model(moved, "sdpa").double()


def scorer(moved: bool, head: ValueHead | None = None) -> Scorer:
    return Scorer(model(moved, register()), False, lambda _: nullcontext(), value_head=head).eval()


def rewards(pairs: list[Pair], head: ValueHead | None = None, length: int = 512) -> dict[int, list[ResponseRewards]]:
    found, left_out = implicit_rewards(
        pairs, scorer(True, head), scorer(False), BETA, tiny.CHAT, tiny.tokenizer(), CPU, length
    )
    assert not left_out
    return found


@torch.no_grad()
def stock(side: str, pair: Pair, ends: bool) -> list[float]:
    """beta * log-ratio of each scored token of a row of its own through stock models."""
    tokenizer = tiny.tokenizer()
    unscored = tiny.CHAT.render(pair.question, (), tokenizer).text + pair.context
    first = len(tokenizer(unscored)["input_ids"])
    ids = tokenizer(unscored + side)["input_ids"] + ([tokenizer.eos_token_id] if ends else [])
    policy, reference = (
        stock_model(moved)(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for moved in (True, False)
    )
    return [BETA * float(policy[t - 1, ids[t]] - reference[t - 1, ids[t]]) for t in range(first, len(ids))]


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_every_token_as_by_stock_models(level: Any) -> None:
    pairs = [level(preference) for preference in tiny.PREFERENCES]
    found = rewards(pairs)
    assert list(found) == list(range(len(pairs)))
    for number, pair in enumerate(pairs):
        sides = ((pair.chosen, pair.chosen_ends), (pair.rejected, pair.rejected_ends))
        for got, (side, ends) in zip(found[number], sides, strict=True):
            expected = stock(side, pair, ends)
            assert [r for step in got.steps for r in step.rewards] == pytest.approx(expected, abs=1e-5)
            assert "".join(step.text for step in got.steps) == side + ("<|im_end|>" if ends else "")


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_sums_of_steps_are_the_margin_of_the_loss(level: Any) -> None:
    """Telescoping: by DPO itself, from one sum a side and without any steps, to fp32 rounding."""
    pairs = [level(preference) for preference in tiny.PREFERENCES]
    found = rewards(pairs)
    tokenized = tokenize(pairs, tiny.CHAT, tiny.tokenizer(), Lengths())
    batch = collate([build_tree(sides, [number], [1.0]) for number, sides in tokenized.sequences.items()])
    with torch.no_grad():
        known = scorer(False)(batch).logps_R
        scores = pair_scores(dataclasses.replace(batch, reference_logps_R=known), scorer(True)(batch))
    out = DPO(beta=BETA)(scores)
    for number, (chosen, rejected) in found.items():
        for got, expected in ((chosen, out.chosen_rewards_B[number]), (rejected, out.rejected_rewards_B[number])):
            by_steps = sum(step.sum for step in got.steps)
            assert by_steps == pytest.approx(float(expected), abs=1e-5)
            assert by_steps == pytest.approx(got.sum, abs=1e-13)
            assert by_steps == pytest.approx(sum(step.mean * len(step.rewards) for step in got.steps), abs=1e-13)
        margin = sum(step.sum for step in chosen.steps) - sum(step.sum for step in rejected.steps)
        z = float(scores.chosen_logratios_B[number] - scores.rejected_logratios_B[number])
        assert margin == pytest.approx(BETA * z, abs=1e-5)
        # -log sigmoid(margin) is the loss of the pair; a confidence of 1 was given.
        assert math.log1p(math.exp(-margin)) == pytest.approx(float(out.losses_B[number]), abs=1e-5)


def test_steps_labels_and_the_first_wrong_one() -> None:
    text = "Step 1: 2 + 3 = 5\nStep 2: 5 + 1 = 7\nThe answer is: 7"
    marked = (Mark(17, 1.0), Mark(len(text), 0.0))
    plain = Pair("2 + 3 + 1?", "", text, "", chosen_ends=True)
    found = rewards([plain, dataclasses.replace(plain, chosen_steps=marked)])
    (unknown,), (known,) = found[0], found[1]
    assert unknown.first_error is None
    assert [step.label for step in unknown.steps] == [None, None]
    assert known.first_error == 1
    assert [step.label for step in known.steps] == [1.0, 0.0]
    assert [step.text for step in known.steps] == [text[:17], text[17:] + "<|im_end|>"]
    assert [r for step in known.steps for r in step.rewards] == [r for step in unknown.steps for r in step.rewards]
    assert {step.value for step in known.steps} == {None}


@torch.no_grad()
@pytest.mark.parametrize("squash", Squash)
def test_values_of_both_sides(squash: Squash) -> None:
    """By hand: the stock model's hidden state at the last token of each step, then the head and what squashes it."""
    head = ValueHead(ValueHeadSpec(squash), 32, 0.5)
    pair = Instance()(tiny.PREFERENCES[1])
    start = tiny.CHAT.render(pair.question, (), tiny.tokenizer()).text
    for got in rewards([pair], head)[0]:
        ids, expected = tiny.tokenizer()(start)["input_ids"], []
        for step in got.steps:
            ids = ids + tiny.tokenizer()(step.text)["input_ids"]
            hidden_H = stock_model(True).model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].float()
            expected.append(float(squash(hidden_H @ head.weight[0] + head.bias)))
        assert [step.value for step in got.steps] == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_scored_is_counted() -> None:
    good, bad = Pair("2 + 3?", "", "5", "6"), Pair("2 + 3?<|im_end|>", "", "5", "6")
    alike, long = Pair("2 + 3?", "", "5", "5"), Pair("2 + 3?" * 90, "", "5", "6")
    found, left_out = implicit_rewards(
        [bad, alike, good, long], scorer(True), scorer(False), BETA, tiny.CHAT, tiny.tokenizer(), CPU, 64
    )
    assert list(found) == [2]
    assert left_out["question holds the control token '<|im_end|>'"] == 1
    assert sum(left_out.values()) == 3
