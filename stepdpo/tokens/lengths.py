"""How long a sequence may be, and what becomes of a pair with a longer one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least
from stepdpo.tokens.batch import SIDES
from stepdpo.tokens.step_spans import Ints
from stepdpo.tokens.token_tree import TokenSequence


class Overlong(Enum):
    """What happens to a pair with a sequence of more than `max_length` tokens."""

    drop = "drop"
    """Leave the pair out, and count it."""
    error = "error"
    """Stop with a UserError."""
    official = "official"
    """Cut as Step-DPO's code does: the end of the prompt is kept, then the start of the response."""


class Equal(Enum):
    """What happens to a pair whose sides have the same tokens, which the cut of `overlong: official` brings about."""

    drop = "drop"
    """Leave the pair out, and count it: there is nothing to prefer."""
    official = "official"
    """Keep it, as Step-DPO's code does: it adds nothing to DPO's gradient, and counts in the mean."""


@dataclass(frozen=True)
class Lengths:
    """How long a sequence may be, in tokens, and what happens to longer ones."""

    max_length: int = 2048
    max_prompt_length: int = 512
    """Used by `overlong: official` only."""
    overlong: Overlong = Overlong.drop
    equal: Equal = Equal.drop

    def __post_init__(self) -> None:
        at_least(2, max_length=self.max_length)
        at_least(1, max_prompt_length=self.max_prompt_length)
        if self.overlong is Overlong.official and not 0 < self.max_prompt_length < self.max_length:
            raise ValueError("max_prompt_length must lie between 0 and max_length, else nothing of a response is left")


def usable_part(sequences: list[TokenSequence], number: int, lengths: Lengths) -> list[TokenSequence] | str:
    """The sequences, truncated where that is asked for, or why the pair is left out."""
    longest = max(len(s.tokens) for s in sequences)
    if longest > lengths.max_length:
        if lengths.overlong is Overlong.error:
            raise UserError(f"pair {number} has {longest} tokens, more than lengths.max_length={lengths.max_length}")
        if lengths.overlong is Overlong.drop:
            return "over-long"
        sequences = _truncate(sequences, lengths)
    if any(s.first_scored < 1 or s.first_scored >= len(s.tokens) for s in sequences):
        return "nothing to score"
    same = len(sequences) >= SIDES and np.array_equal(sequences[-2].tokens, sequences[-1].tokens)
    if same and lengths.equal is Equal.drop:
        return "same tokens on both sides"
    return sequences


def _truncate(sequences: list[TokenSequence], lengths: Lengths) -> list[TokenSequence]:
    """Truncation of trl 0.8.5 as Step-DPO ran it: keep the end of the prompt, then the start of the response."""
    truncated = []
    for sequence in sequences:
        skip = max(0, sequence.first_scored - lengths.max_prompt_length)
        tokens: Ints = sequence.tokens[skip:]
        first = sequence.first_scored - skip
        longest = max(len(s.tokens) - max(0, s.first_scored - lengths.max_prompt_length) for s in sequences)
        if longest > lengths.max_length:  # the longer side decides for both, as in trl
            tokens = tokens[: first + lengths.max_length - lengths.max_prompt_length]
        steps = sequence.steps.cut(skip, len(tokens), first) if sequence.steps else None
        truncated.append(TokenSequence(tokens, first, sequence.owner, steps))
    return truncated
