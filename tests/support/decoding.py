"""Decoders at work on scripted samplers and scorers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.types import Completion, Prompt, Sampling
from stepdpo.generation.answering import Answering
from stepdpo.generation.decode_many import decode_many
from stepdpo.generation.decoded import DecodeContext, Decoded
from stepdpo.generation.requests import Beginning, Scored

PROMPT = "Q\n"


@dataclass
class Writing:
    """Goes on from a prompt with the texts written for it, in turn; a text that ends in `$` is ended by the model."""

    texts: Mapping[str, Sequence[str]]
    asked: list[tuple[list[str], Sampling]] = field(default_factory=list)

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.asked.append((list(prompts), params))
        found = []
        for prompt, stream in zip(prompts, streams or [0] * len(prompts), strict=True):
            texts = self.texts[prompt]
            found.append([self._one(texts[(stream * params.n + i) % len(texts)]) for i in range(params.n)])
        return found

    def _one(self, text: str) -> Completion:
        return Completion(text.removesuffix("$"), 2 + len(text), "eos" if text.endswith("$") else "stop", -1.0)


def by(score: Callable[[Beginning], float], log: bool = False) -> Callable[..., list[Scored]]:
    """A scorer that reads ten tokens a beginning."""
    return lambda items: [Scored(score(one), (score(one),), log, 10) for _, one in items]


def by_last_letter(responses: Sequence[Sequence[str]]) -> list[list[int | None]]:
    """Final answers are last letters; a dot is none."""
    return [
        [None if text[-1] == "." else [one[-1] for one in some].index(text[-1]) for text in some] for some in responses
    ]


def decode(decoder: Any, sampler: Any, score: Any = None, prompts: Sequence[str] = (PROMPT,)) -> list[Decoded]:
    """A token is a character."""
    contexts = [DecodeContext(Prompt(prompt, ""), len, score is not None) for prompt in prompts]
    return decode_many(decoder, contexts, Answering(sampler, Sampling(), score_steps=score, group=by_last_letter))
