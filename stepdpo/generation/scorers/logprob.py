"""How likely the model itself finds a beginning: the likelihood search of arXiv 2404.12358, without a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Sampler
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.requests import Beginning, Scored
from stepdpo.generation.score_steps import step_logps, step_texts
from stepdpo.generation.step_scorer import Aggregate
from stepdpo.generation.transformers import LocalSampler
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class Logprob:
    """The score of a step is log pi(step | what stands before it), in nats, at temperature 1.

    `product` of all steps, the default, is the log-probability of the whole, which favours short responses; `mean` is
    that a step.
    """

    aggregate: Aggregate = Aggregate.product

    log: ClassVar[bool] = True

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        """With the sampler's own model. UserError for a sampler that cannot score texts."""
        if not hasattr(sampler, "score"):
            raise UserError("scorer=logprob: this sampler cannot score texts; use sampler=transformers or sampler=vllm")
        yield lambda items: self._score(items, sampler)

    def must_fit(self, model: ModelSpec) -> None:
        """Every model does."""

    def _score(self, items: Sequence[tuple[str, Beginning]], sampler: Any) -> list[Scored]:
        texts = step_texts(items, sampler.tokenizer)
        if isinstance(sampler, LocalSampler):
            logps = step_logps(sampler.model, texts, sampler.batch_tokens)
            read = [len(text.ids) for text in texts]
        else:
            logps = _step_by_step(items, sampler)
            read = [sum(text.ends) for text in texts]  # each step with all that stands before it
        return [
            Scored(self.aggregate(by_step, self.log), tuple(by_step), self.log, tokens)
            for by_step, tokens in zip(logps, read, strict=True)
        ]


def _step_by_step(items: Sequence[tuple[str, Beginning]], sampler: Any) -> list[list[float]]:
    """By a sampler that scores continuations of texts; without the end of a text, which it cannot be given."""
    prompts = [
        prompt + "".join(beginning.steps[:place])
        for prompt, beginning in items
        for place in range(len(beginning.steps))
    ]
    nats = iter(sampler.score(prompts, [step for _, beginning in items for step in beginning.steps]))
    return [[next(nats) for _ in beginning.steps] for _, beginning in items]
