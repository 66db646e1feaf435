"""Pair -> token sequences: the only crossing from text to integers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template
from stepdpo.core.types import Pair, Prompt, Turn
from stepdpo.data.fields import RowError
from stepdpo.tokens.lengths import Lengths, usable_part
from stepdpo.tokens.side_marks import SideMarks, side_marks
from stepdpo.tokens.token_tree import TokenSequence

NOT_FAST = "this model's tokenizer gives no character offsets; a fast (Rust) tokenizer is needed"
BATCH = 1024
"""Texts that are tokenised at once: enough for the backend's threads, few enough to hold all their offsets."""


@dataclass(frozen=True)
class Tokenized:
    """The chosen sequence and, if there is one, the rejected one of each usable pair; and what could not be used."""

    sequences: dict[int, list[TokenSequence]]
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> count."""
    refused: dict[int, str] = field(default_factory=dict)
    """Number of a pair -> why its row is a bad one: its text cannot be written as a prompt and a response."""


def encode(texts: Sequence[str], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of whole texts and the character index where each token ends.

    A beginning-of-text token is put in front iff the tokenizer has one and the text does not start with it.
    Raises UserError for a tokenizer that cannot give offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(NOT_FAST)
    for start in range(0, len(texts), BATCH):
        some = list(texts[start : start + BATCH])
        encoded = tokenizer(some, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            bos = tokenizer.bos_token_id
            needs_bos = bos is not None and (not ids or ids[0] != bos)
            head = [bos] if needs_bos else []
            yield head + list(ids), [0] * len(head) + [end for _, end in offsets]


def _encode_from(
    texts: Sequence[str], boundaries: Sequence[Sequence[int]], tokenizer: Any
) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids as `encode` gives them, and for each boundary of the text the first token that ends after it.

    Straight from the backend, which finds that token by itself: offsets of all tokens cost as much as the tokens.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(NOT_FAST)
    backend, bos = tokenizer.backend_tokenizer, tokenizer.bos_token_id
    backend.no_truncation()
    backend.no_padding()
    for start in range(0, len(texts), BATCH):
        some = slice(start, start + BATCH)
        encodings = backend.encode_batch(list(texts[some]), add_special_tokens=False)
        for encoding, wanted in zip(encodings, boundaries[some], strict=True):
            ids = encoding.ids
            firsts = [_first_after(encoding, boundary) for boundary in wanted]
            # Some tokenizers write it themselves, and a template's text may begin with it: never two of them.
            needs_bos = bos is not None and (not ids or ids[0] != bos)
            yield ([bos, *ids], [first + 1 for first in firsts]) if needs_bos else (ids, firsts)


def _first_after(encoding: Any, boundary: int) -> int:
    first: int | None = encoding.char_to_token(boundary)
    if first is None:  # between tokens, or behind the last
        # Several tokens of one character share an end, and some have none: only a running maximum is in order.
        ends = np.array([end for _, end in encoding.offsets], np.int64)
        first = int(np.searchsorted(np.maximum.accumulate(ends), boundary, side="right"))
    return first


def question_prompt(template: Template, question: str, history: Sequence[Turn], tokenizer: Any) -> Prompt:
    """A question as it is given to a model that is to answer it.

    Raises RowError where the chat template refuses it, or it holds control tokens.
    """
    for name, text in (("question", question), *((f"turn of the {turn.role}", turn.content) for turn in history)):
        ControlTokens(tokenizer).refuse(name, text)
    return generation_prompt(template.render(question, history, tokenizer), tokenizer)


def generation_prompt(prompt: Prompt, tokenizer: Any) -> Prompt:
    """The prompt as it is given to a model that is to go on from it.

    Where the tokenizer makes one token of the prompt's end and the joint (`:` and a newline, in Qwen2's case), the
    joint is given too: left to the model, it would follow a token that it never followed in training.
    """
    if not prompt.joint:
        return prompt
    (alone, _), (joined, _) = encode([prompt.text, prompt.text + prompt.joint], tokenizer)
    if joined[: len(alone)] == alone:
        return prompt
    return Prompt(prompt.text + prompt.joint, "")


class ControlTokens:
    """The texts that a tokenizer reads as control tokens, wherever they stand: what data must not write."""

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        texts = {str(token.content) for token in added if token.special} | set(
            getattr(tokenizer, "all_special_tokens", ())
        )
        longest_first = sorted(filter(None, texts), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._end: str = getattr(tokenizer, "eos_token", None) or ""

    def without_end(self, side: str) -> str:
        """A side without an end of text that the data wrote: whether one is scored is for the level to say."""
        while self._end and side.rstrip().endswith(self._end):
            side = side.rstrip().removesuffix(self._end)
        return side

    def refuse(self, name: str, text: str) -> None:
        """RowError where there is one in a text.

        Refused rather than encoded as plain text: no model has been trained on such a text spelt out.
        """
        if self._pattern and (found := self._pattern.search(text)):
            raise RowError(f"{name} holds the control token {found[0]!r}")

    def checked(self, pair: Pair) -> Pair:
        """The pair without ends written by the data; RowError where another control token is left in it."""
        given = pair
        pair = replace(pair, chosen=self.without_end(pair.chosen), rejected=self.without_end(pair.rejected))
        turns = {f"turn {number}": turn.content for number, turn in enumerate(pair.history, start=2)}
        texts = {"question": pair.question, **turns, "prefix": pair.context, "chosen": pair.chosen}
        for name, text in {**texts, "rejected": pair.rejected}.items():
            self.refuse(name, text)
        for name, before, after in (("chosen", given.chosen, pair.chosen), ("rejected", given.rejected, pair.rejected)):
            if before and not after:
                raise RowError(f"{name} holds nothing but the end of text")
        return pair


def side_texts(pair: Pair, template: Template, tokenizer: Any, rest: bool) -> tuple[str, str, list[str]]:
    """The unscored text, what stands before a side, and the sides.

    The joint is the first character of the response. A context follows it, so it is read; without one it is scored, as
    the model has to write it at evaluation (unless the template leaves it out there, as `alpaca_official` does).
    """
    prompt = template.render(pair.question, pair.history, tokenizer)
    start = prompt.text + (prompt.joint if pair.context or prompt.joint_alone else "")
    unscored = start + pair.context if pair.context else prompt.text
    # The longest of those that begin alike first: of each, a store keeps what the one before it has not.
    sides = [pair.chosen + pair.rest] if rest else []
    sides += [pair.chosen] + ([pair.rejected] if pair.rejected else [])
    return unscored, start + pair.context, sides


def _ends(pair: Pair, rest: bool) -> list[bool]:
    """Of each side of `side_texts`, whether an end of text follows it."""
    return [*([pair.rest_ends] if rest else []), pair.chosen_ends, *([pair.rejected_ends] if pair.rejected else [])]


def refusals(pairs: Iterable[Pair], template: Template | None, tokenizer: Any) -> Iterator[str]:
    """Of each pair why it cannot be written as a prompt and a response, or nothing; without a template, of its data."""
    control = ControlTokens(tokenizer)
    for pair in pairs:
        try:
            checked = control.checked(pair)
            if template is not None:
                template.render(checked.question, checked.history, tokenizer)
        except RowError as error:
            yield str(error)
        else:
            yield ""


def tokenize(
    pairs: Sequence[Pair],
    template: Template,
    tokenizer: Any,
    lengths: Lengths,
    numbers: Sequence[int] | None = None,
    steps: bool = False,
    rest: bool = False,
) -> Tokenized:
    """Token sequences of all pairs under their `numbers`, else from 0 on; with their `steps` where these are wanted.

    With `rest` the chosen side together with its rest is a side of its own, in front of the others.

    A token is scored iff it ends after the unscored text does, and belongs to the step that it ends in.

    Pairs that are too long, whose sides have the same tokens, or that score nothing are dropped and counted;
    with `overlong: error` the first over-long one raises UserError. Those that the chat template refuses, or that hold
    control tokens, are `refused`.
    """
    boundaries: list[list[int]] = []
    texts: list[str] = []
    marks: list[SideMarks] = []
    readable: dict[int, Pair] = {}
    refused: dict[int, str] = {}
    control = ControlTokens(tokenizer)
    for number, pair in zip(numbers or range(len(pairs)), pairs, strict=True):
        try:
            readable[number] = pair = control.checked(pair)
            unscored, before, sides = side_texts(pair, template, tokenizer, rest)
        except RowError as error:
            readable.pop(number, None)
            refused[number] = str(error)
            continue
        texts += [before + side for side in sides]
        marked = side_marks(pair) if steps else [None] * len(sides)
        boundaries += [[len(unscored), *(one.ends(len(before)) if one else ())] for one in marked]
        marks += [one for one in marked if one]
    # Whole texts are tokenised, never a prompt and a response apart: the joined halves would be a sequence of tokens
    # that the model never writes. So a token may straddle the boundary; it is scored, as it would be sampled.
    encoded, of_sides = _encode_from(texts, boundaries, tokenizer), iter(marks)
    kept: dict[int, list[TokenSequence]] = {}
    dropped: Counter[str] = Counter()
    for number, pair in readable.items():
        sequences = []
        for side, ends in enumerate(_ends(pair, rest)):
            ids, (scored, *stops) = next(encoded)
            if ends and tokenizer.eos_token_id is not None:
                ids = [*ids, tokenizer.eos_token_id]
            found = next(of_sides).steps(stops, scored, len(ids)) if steps else None
            sequences.append(TokenSequence(np.asarray(ids, np.int32), scored, side, found))
        usable = usable_part(sequences, number, lengths)
        if isinstance(usable, str):
            dropped[usable] += 1
        else:
            kept[number] = usable
    return Tokenized(kept, dropped, refused)
