"""The texts of a side's tokens are the side, letter by letter."""

from __future__ import annotations

from typing import Any

import pytest
from support import tiny

from stepdpo.core.types import Pair
from stepdpo.data.level import Instance, Step
from stepdpo.data.templates import TextTemplate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.token_texts import token_texts
from stepdpo.tokens.tokenization import tokenize

LETTERS = Pair("2 + 3?", "", "Step 1: π ≈ 3 → 数 😀", "Step 1: naïve 4", chosen_ends=True)


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.ALPACA, tiny.DEEPSEEK], ids=lambda one: one.name)
@pytest.mark.parametrize("level", [Step(), Instance()], ids=["step", "instance"])
@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), tiny.with_bos(prepends=True)], ids=["plain", "bos"])
def test_together_they_are_what_is_scored(level: Any, template: TextTemplate, tokenizer: Any) -> None:
    """A joint is scored where nothing is read before the side; an end of text follows where the level says so."""
    pairs = [*map(level, tiny.PREFERENCES), LETTERS]
    sequences = tokenize(pairs, template, tokenizer, Lengths(), steps=True).sequences
    for number, pair in enumerate(pairs):
        found = token_texts(pair, sequences[number], template, tokenizer)
        joint = "" if pair.context else template.joint
        ends = [tokenizer.eos_token if end else "" for end in (pair.chosen_ends, pair.rejected_ends)]
        assert ["".join(side) for side in found] == [
            joint + pair.chosen + ends[0], joint + pair.rejected + ends[1]
        ]  # fmt: skip
        assert [len(side) for side in found] == [len(s.tokens) - s.first_scored for s in sequences[number]]


def test_a_letter_of_several_tokens_is_the_first_ones() -> None:
    """The miniature writes any text in bytes: the four of an emoji are four tokens."""
    sequences = tokenize([LETTERS], tiny.CHAT, tiny.tokenizer(), Lengths()).sequences[0]
    chosen = token_texts(LETTERS, sequences, tiny.CHAT, tiny.tokenizer())[0]
    at = chosen.index("😀")
    assert chosen[at : at + 4] == ["😀", "", "", ""]
    assert chosen[-1] == "<|im_end|>"


def test_other_sequences_are_refused() -> None:
    first, second = (Step()(preference) for preference in tiny.PREFERENCES[:2])
    sequences = tokenize([second], tiny.CHAT, tiny.tokenizer(), Lengths()).sequences[0]
    with pytest.raises(ValueError, match="not the sequences of the pair"):
        token_texts(first, sequences, tiny.CHAT, tiny.tokenizer())
