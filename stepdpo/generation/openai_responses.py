"""What a server's reply says of its responses. Pure functions: a reply comes in as the JSON object that it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.types import Completion

BY_ITSELF = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}
"""Words for a response that the model, or a stop string, has ended."""
CUT = {"length", "max_tokens", "content_filter"}
TOO_LONG = re.compile(
    r"context length|too long|longer than|max_new_tokens|exceed|maximum[^.]{0,60}(?:length|tokens)", re.I
)
"""How servers say that a prompt has no room."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One response of a reply."""

    text: str
    finish: str
    """As Completion has it."""
    logp: float | None
    tokens: int | None
    """None where only the whole reply's tokens are counted."""


def completions(reply: Mapping[str, Any], stop: Sequence[str] = ()) -> list[Completion]:
    """All responses of a reply with their parts of its tokens. ValueError for a reply that is no answer."""
    entries = reply.get("choices")
    if not isinstance(entries, list) or not entries:
        raise ValueError("an answer without choices")
    choices = [_choice(entry, stop) for entry in entries]
    usage = reply.get("usage")
    total = usage.get("completion_tokens") if isinstance(usage, dict) else None
    counts = [choice.tokens for choice in choices]
    if isinstance(total, int) and not isinstance(total, bool) and total >= 0:
        counts = list(apportion(total, [choice.tokens or len(choice.text) for choice in choices]))
    return [Completion(c.text, tokens or 0, c.finish, c.logp) for c, tokens in zip(choices, counts, strict=True)]


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """The total in whole parts, as nearly as the weights are to one another."""
    whole, passed, given, parts = max(1, sum(weights)), 0, 0, []
    # By running totals: the parts are whole numbers that add up to the total, and none is off by more than one.
    for weight in weights:
        passed += weight
        parts.append(total * passed // whole - given)
        given += parts[-1]
    parts[-1] += total - given
    return parts


def _choice(entry: Any, stop: Sequence[str]) -> Choice:
    if not isinstance(entry, dict):
        raise ValueError("an answer with an odd choice")
    message = entry.get("message")
    text = message.get("content") if isinstance(message, dict) else entry.get("text")
    if not isinstance(text, str):
        if message is None or text is not None:
            raise ValueError("an answer without text")
        text = ""  # a chat may say nothing
    # Whatever a server leaves of a stop string in the text is taken off here.
    found = [at for at in map(text.find, filter(None, stop)) if at >= 0]
    finish = "stop" if found else _finish(entry, stop)
    logps = _logps(entry.get("logprobs"))
    return Choice(text[: min(found)] if found else text, finish, sum(logps) if logps else None, len(logps) or None)


def _finish(entry: Mapping[str, Any], stop: Sequence[str]) -> str:
    """`eos`, `stop` or `length`.

    Officially a stop string and the end of a turn are one word, `stop`. vLLM and SGLang say in a field of their own
    which it was. Elsewhere, where stop strings were given, one is taken to have been met: going on from a solution that
    had ended costs an empty continuation, while taking a piece of one for the whole would be an error.
    """
    reason = str(entry.get("finish_reason"))
    if reason in CUT:
        return "length"
    if reason not in BY_ITSELF:
        raise ValueError(f"an answer that ended by {reason[:40]!r}")
    if reason == "stop_sequence":
        return "stop"
    if not stop or reason != "stop":
        return "eos"
    for field in ("stop_reason", "matched_stop"):
        if field in entry:
            return "stop" if isinstance(entry[field], str) else "eos"
    return "stop"


def _logps(logprobs: Any) -> list[float]:
    """Nats of each token, of either endpoint; empty where there are none."""
    if not isinstance(logprobs, dict):
        return []
    content, numbers = logprobs.get("content"), logprobs.get("token_logprobs")
    if isinstance(content, list):
        numbers = [token.get("logprob") for token in content if isinstance(token, dict)]
    if not isinstance(numbers, list):
        return []
    logps = [float(number) for number in numbers if _is_logp(number)]
    # A sum over some of the tokens would be taken for one over all of them.
    return logps if len(logps) == len(numbers) else []


def prompt_logps(reply: Mapping[str, Any], count: int) -> list[float | None]:
    """Nats of the `count` tokens of an echoed prompt; the first has none. ValueError where the reply has fewer."""
    entries = reply.get("choices")
    logprobs = (
        entries[0].get("logprobs") if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None
    )
    numbers = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(numbers, list) or len(numbers) < count:
        raise ValueError("an answer without log-probabilities of the prompt")
    if not all(_is_logp(number) for number in numbers[1:count]):
        raise ValueError("an answer with log-probabilities that are no numbers")
    return numbers[:count]


def _is_logp(number: Any) -> bool:
    """Whether it is a number that a sum can take: neither NaN, infinite, nor of hundreds of digits."""
    return isinstance(number, int | float) and -1e9 <= number <= 1e9
