"""The value that the model's own head gives to a beginning (AlphaMath, arXiv 2405.03553)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.protocols import Sampler
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.head_scores import head_of, head_scores, must_have_head
from stepdpo.generation.step_scorer import Aggregate, beside
from stepdpo.generation.transformers import LocalSampler
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class ValueHead:
    """The score of a step is how likely its beginning comes right, in [0, 1], read at the step's last token.

    A head of values v in [-1, 1], as algo=value trains it, says (1 + v) / 2.
    """

    aggregate: Aggregate = Aggregate.last

    log: ClassVar[bool] = False

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        """With the sampler's own model where that is in this process, else with one loaded beside it."""
        head = head_of(model, "scorer=value_head")
        if isinstance(sampler, LocalSampler):
            yield head_scores(head, sampler, self.aggregate)
            return
        with beside(sampler, model) as local:
            yield head_scores(head, local, self.aggregate)

    def must_fit(self, model: ModelSpec) -> None:
        """UserError for a model without a value head."""
        must_have_head(model, "scorer=value_head")
