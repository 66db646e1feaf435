"""From new tokens to a response's text: exact white space, stop strings, the tokens that end a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>")
"""Special tokens that end a turn in chat templates, wherever the vocabulary has them."""
TAIL = 8
"""Tokens of the prompt that are decoded with the response; a few are enough, as only the beginning of a text is read
otherwise than the rest."""


def eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a response: of the generation config, of the tokenizer, and the chat templates' own."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = set(named if isinstance(named, list | tuple) else [named])
    ids.add(tokenizer.eos_token_id)
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    # A checkpoint's own list may name the end of text alone, and then a chat runs on past its turn.
    ids.update({**special, **added}.get(end) for end in ENDS)
    return tuple(sorted(number for number in ids if number is not None))


def decode(tokens: Sequence[int], tokenizer: Any) -> str:
    """Plain text: special tokens left out, nothing tidied."""
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def response_text(prompt: Sequence[int], tokens: Sequence[int], tokenizer: Any) -> str:
    """What `tokens` add to the prompt's text.

    Decoded together with the prompt's end, as some tokenizers drop a blank at the beginning of a text.
    """
    tail = list(prompt[-TAIL:])
    before, both = decode(tail, tokenizer), decode([*tail, *tokens], tokenizer)
    return both[len(before) :] if both.startswith(before) else decode(tokens, tokenizer)


class StopStrings:
    """Finds stop strings in new tokens."""

    def __init__(self, stop: Sequence[str], tokenizer: Any) -> None:
        self.stop, self.tokenizer = [text for text in stop if text], tokenizer
        # In tokens: a character takes four at most (a byte each), and STOP_EVERY of decode_loop.py, with some to
        # spare, may have been written since the last search.
        self.window = 16 + 4 * max(map(len, self.stop), default=0)

    def found(self, tokens: Sequence[int]) -> bool:
        """Whether a stop string ends among the last few tokens (more of them than between two searches)."""
        return self._in(tokens[-self.window :])

    def tokens_until(self, tokens: Sequence[int]) -> int:
        """How many tokens it took to complete the first stop string; all of them if there is none."""
        # By halves, as a text once complete stays so: about ten decodings instead of one a token.
        low, high = 1, len(tokens)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._in(tokens[:middle]) else (middle + 1, high)
        return low

    def _in(self, tokens: Sequence[int]) -> bool:
        text = decode(tokens, self.tokenizer)
        return any(stop in text for stop in self.stop)
