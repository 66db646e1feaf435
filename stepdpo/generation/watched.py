"""A decoder at work on one question, watched: what it writes and what a scorer says of it, told as it happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.protocols import Sampler
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.decode_loop import Watch
from stepdpo.generation.requests import Beginning, JudgeFailed, Scored
from stepdpo.generation.stop_strings import response_text
from stepdpo.generation.transformers import LocalSampler
from stepdpo.tokens.tokenization import encode

HALF = "\ufffd"
"""What a character looks like of which not all tokens are there yet."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """Something was written."""

    tokens: int
    """Of all that was written for the question, so far."""
    text: str | None = None
    """The answer, as far as it is written; None where several are, or a part of one."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Beginnings of answers were scored, at least one."""

    beginnings: tuple[Beginning, ...]
    scored: tuple[Scored, ...]


Tell = Callable[[Wrote | Looked], None]
"""Hears what happens; what it raises ends the work."""


class WatchedSampler:
    """A sampler that tells what it writes: token by token where its model is in this process, else once it is there."""

    def __init__(self, sampler: Sampler, question: str, tell: Tell) -> None:
        """`question`: the prompt whose only response is told as text."""
        self.sampler, self.question, self.tell = sampler, question, tell
        self.tokens = 0

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        """As the sampler does."""
        if isinstance(self.sampler, LocalSampler):
            whole = list(prompts) == [self.question] and params.n == 1 and not params.stop
            watch = self._text(self.sampler) if whole else self._count
            return self.sampler.sample(prompts, params, streams, watch)
        done = self.sampler.sample(prompts, params, streams)
        self.tokens += sum(completion.tokens for some in done for completion in some)
        self.tell(Wrote(self.tokens))
        return done

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """As the sampler does, where it can."""
        scorer: Any = self.sampler
        nats: list[float] = scorer.score(prompts, continuations)
        return nats

    def _count(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        self.tokens += len(tokens)
        self.tell(Wrote(self.tokens))

    def _text(self, local: LocalSampler) -> Watch:
        ((prompt, _),) = encode([self.question], local.tokenizer)
        written: list[int] = []

        def watch(rows: Sequence[int], tokens: Sequence[int]) -> None:
            written.extend(tokens)
            self.tokens += len(tokens)
            self.tell(Wrote(self.tokens, response_text(prompt, written, local.tokenizer).rstrip(HALF)))

        return watch


def watched(score: ScoreAll, tell: Tell) -> ScoreAll:
    """A scorer that tells what it finds."""

    def scored(items: Sequence[tuple[str, Beginning]]) -> Sequence[Scored | JudgeFailed]:
        found = score(items)
        pairs = [(item[1], one) for item, one in zip(items, found, strict=True) if isinstance(one, Scored)]
        if pairs:
            tell(Looked(tuple(beginning for beginning, _ in pairs), tuple(one for _, one in pairs)))
        return found

    return scored
