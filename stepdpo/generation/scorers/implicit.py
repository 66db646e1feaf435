"""The reward that a trained model is implicitly: beta times how much likelier it finds a step than its reference does.

Rafailov et al. 2024 (arXiv 2404.12358); as a process reward model Yuan et al. 2024 (arXiv 2412.01981).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

from stepdpo.core.config import build
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import packaged
from stepdpo.core.protocols import Sampler
from stepdpo.core.ranges import positive
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.requests import Beginning, Scored
from stepdpo.generation.score_steps import UNREADABLE, step_logps, step_texts
from stepdpo.generation.step_scorer import Aggregate, beside, same_tokens
from stepdpo.generation.transformers import LocalSampler
from stepdpo.models.load import ModelSpec, Pretrained, must_exist
from stepdpo.runtime.run_folder import CONFIG


class Form(Enum):
    """What of the log-ratios a step's score is made of."""

    sum = "sum"
    """All up to the step's end: q = beta log(pi / ref) of the beginning."""
    step = "step"
    """The step's own: q less that of the step before."""


@dataclass(frozen=True)
class Implicit:
    """The score of a step is beta log(pi / ref), of all up to its end or of its own tokens.

    It is relative to the reference and says nothing of how likely a beginning comes right.
    """

    beta: float = 0.05
    """Scales the scores: it changes no choice, but what a response counts in a vote."""
    form: Form = Form.sum
    aggregate: Aggregate = Aggregate.last
    reference: str | None = None
    """Folder or hub id; null: what the model's run began with."""

    log: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(beta=self.beta)

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        """Load the reference, and the model too where the sampler has it elsewhere."""
        with ExitStack() as stack:
            local = sampler if isinstance(sampler, LocalSampler) else stack.enter_context(beside(sampler, model))
            reference = stack.enter_context(beside(local, self._reference(model)))
            same_tokens(local.tokenizer, reference.tokenizer, "scorer.reference")
            yield lambda items: self._score(items, local, reference)

    def must_fit(self, model: ModelSpec) -> None:
        """UserError where nothing says what the reference is."""
        if isinstance(reference := self._reference(model), Pretrained):
            must_exist(reference.path, packaged(reference.path), "scorer.reference")

    def _score(
        self, items: Sequence[tuple[str, Beginning]], policy: LocalSampler, reference: LocalSampler
    ) -> list[Scored]:
        texts = step_texts(items, policy.tokenizer)
        both = [step_logps(one.model, texts, one.batch_tokens) for one in (policy, reference)]
        scored = []
        for text, logps, reference_logps in zip(texts, *both, strict=True):
            # What a model has no positions for is no likelier under one than under the other, and must not look so.
            ratios = [
                UNREADABLE if UNREADABLE in (a, b) else self.beta * (a - b)
                for a, b in zip(logps, reference_logps, strict=True)
            ]
            by_step = list(accumulate(ratios)) if self.form is Form.sum else ratios
            scored.append(Scored(self.aggregate(by_step, self.log), tuple(by_step), self.log, 2 * len(text.ids)))
        return scored

    def _reference(self, model: ModelSpec) -> ModelSpec:
        """The model that is named, else the one that the run whose model this is was held against."""
        if self.reference is not None:
            return Pretrained(self.reference)
        folder = Path(model.source)
        if not (folder.name == "model" and (folder.parent / CONFIG).is_file()):
            raise UserError(
                f"scorer=implicit: nothing says what {model.source!r} was trained from: name scorer.reference=MODEL; "
                "train a model that goes with one by algo=dpo, another preference loss, or algo=outcome"
            )
        config = load_config(folder.parent / CONFIG)
        named = build(config.get("reference_model") or config.model, "model")
        found: ModelSpec = Pretrained(named) if isinstance(named, str) else named
        return found
