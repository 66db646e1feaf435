"""The decoders of many problems at work together: what they request is answered in full batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.protocols import Sampler
from stepdpo.core.types import Completion, Prompt, Sampling
from stepdpo.generation.answering import Answering, rounds
from stepdpo.generation.decoded import Cost, DecodeContext, Decoded, Decoder, Decoding
from stepdpo.generation.requests import Generate, JudgeFailed, Request, ScoreSteps
from stepdpo.tokens.tokenization import encode


def decode_many(decoder: Decoder, contexts: Sequence[DecodeContext], answering: Answering) -> list[Decoded]:
    """The answer to each prompt, in their order. Raises JudgeFailed where a scorer did not answer."""
    done: dict[int, Decoded] = {}
    for finished in decode_rounds([decoder(context) for context in contexts], answering):
        for number, decoded in finished:
            if isinstance(decoded, JudgeFailed):
                raise decoded
            done[number] = decoded
    return [done[number] for number in range(len(contexts))]


def decode_rounds(
    decodings: Sequence[Decoding], answering: Answering
) -> Iterator[list[tuple[int, Decoded | JudgeFailed]]]:
    """What decoders at work come to, with their numbers: those that each round of requests has finished together.

    A JudgeFailed where a scorer did not answer; the others go on.
    """
    live = [_LiveDecoding(number, decoding) for number, decoding in enumerate(decodings)]
    for finished in rounds(live, lambda some: answering.answer([(None, one.wanted) for one in some])):
        yield [(one.number, one.decoded) for one in finished]


def answers(decoder: Decoder, prompts: Sequence[str], sampler: Sampler) -> list[Completion]:
    """The answers of a decoder that asks the sampler alone, and counts no tokens of a text."""
    contexts = [DecodeContext(Prompt(prompt, ""), len) for prompt in prompts]
    return [decoded.answer for decoded in decode_many(decoder, contexts, Answering(sampler, Sampling()))]


def context_of(prompt: Prompt, tokenizer: Any, scored: bool) -> DecodeContext:
    """What a decoder is given for one prompt."""

    def count(text: str) -> int:
        (before, _), (whole, _) = encode([prompt.text, prompt.text + text], tokenizer)
        return len(whole) - len(before)

    return DecodeContext(prompt, count, scored)


@dataclass
class _LiveDecoding:
    """A problem that is worked on: its generator, the request whose answer that waits for, and what it cost so far."""

    number: int
    requests: Decoding
    request: Request | None = None
    result: Decoded | JudgeFailed | None = None
    generated: int = 0
    scored: int = 0
    calls: int = 0

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def decoded(self) -> Decoded | JudgeFailed:
        assert self.result is not None, "asked for before it is finished"
        return self.result

    @property
    def wanted(self) -> Request:
        assert self.request is not None, "asked for before it is started"
        return self.request

    def advance(self, reply: Any) -> None:
        """Send the answer, and learn the next request or the result."""
        failure = isinstance(reply, JudgeFailed)
        if isinstance(self.request, Generate):
            self.generated += sum(completion.tokens for some in reply for completion in some)
            self.calls += 1
        if isinstance(self.request, ScoreSteps) and not failure:
            self.scored += sum(scored.tokens for scored in reply)
            self.calls += 1
        try:
            self.request = self.requests.throw(reply) if failure else self.requests.send(reply)
        except StopIteration as end:
            self.result = Decoded(end.value, Cost(self.generated, self.scored, self.calls))
        except JudgeFailed as error:
            self.result = error
