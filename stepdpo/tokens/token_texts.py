"""Which stretch of a side's text each of its scored tokens stands for: for people, who read no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from stepdpo.core.protocols import Template
from stepdpo.core.types import Pair
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.tokenization import ControlTokens, encode, side_texts


def token_texts(pair: Pair, sequences: Sequence[TokenSequence], template: Template, tokenizer: Any) -> list[list[str]]:
    """One text a scored token of each side; together they are the side as it is scored, and its end of text.

    `sequences` are what `tokenize` made of the pair, whole. Of several tokens that share a letter the first has it. A
    token that begins before what is scored is shown from there on.
    """
    unscored, before, sides = side_texts(ControlTokens(tokenizer).checked(pair), template, tokenizer, rest=False)
    texts = [before + side for side in sides]
    found = []
    for text, sequence, (ids, ends) in zip(texts, sequences, encode(texts, tokenizer), strict=True):
        tokens = sequence.tokens.tolist()
        if tokens[: len(ids)] != ids:
            raise ValueError("these are not the sequences of the pair")
        bounds = [max(len(unscored), end) for end in accumulate(ends, max, initial=0)]
        pieces = [text[start:stop] for start, stop in pairwise(bounds)]
        pieces += [str(tokenizer.eos_token)] * (len(tokens) - len(ids))
        found.append(pieces[sequence.first_scored :])
    return found
