"""A process reward model: the value head of another model than the one that writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.package_data import packaged
from stepdpo.core.protocols import Sampler
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.head_scores import head_of, head_scores, must_have_head
from stepdpo.generation.step_scorer import Aggregate, beside
from stepdpo.models.load import ModelSpec, Pretrained, must_exist


@dataclass(frozen=True)
class Prm:
    """The score of a step is how likely it is right, in [0, 1], in the eyes of a model trained by algo=prm.

    It reads the prompt as the model that writes reads it, so both should have been trained with one template.
    """

    path: str
    """Its folder, as `runs/NAME/model`, or hub id."""
    aggregate: Aggregate = Aggregate.min

    log: ClassVar[bool] = False

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        """Load it beside the sampler."""
        judge = Pretrained(self.path)
        head = head_of(judge, "scorer.path")
        with beside(sampler, judge) as local:
            yield head_scores(head, local, self.aggregate)

    def must_fit(self, model: ModelSpec) -> None:
        """UserError where there is no such model, or it has no value head."""
        must_exist(self.path, packaged(self.path), "scorer.path")
        must_have_head(Pretrained(self.path), "scorer.path")
