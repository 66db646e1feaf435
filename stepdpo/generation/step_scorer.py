"""The seam of scorers: how promising is the beginning of a response, told from its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from math import fsum, prod
from pathlib import Path
from typing import Any, ClassVar, Protocol

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Checker, Sampler, Template
from stepdpo.core.types import Problem
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.transformers import Dtype, LocalSampler, TransformersSampler
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class Asked:
    """What is asked, for a scorer that looks at more of it than prompts."""

    problems: Mapping[str, Problem]
    """By the text of their prompts."""
    template: Template
    tokenizer: Any
    checker: Checker | None
    """The task's exact step checker, where it has one."""
    folder: Path
    """Where a transcript may be kept."""


class StepScorer(Protocol):
    """A part of the group `scorer`.

    One that looks at the problems offers `knowing(asked)` as well: a StepScorer, which is opened in its place. One that
    knows from which score on a step is right has a `threshold`.
    """

    log: ClassVar[bool]
    """Whether its scores are log-probabilities or log-ratios, of any sign; else probabilities in [0, 1]."""

    def open(self, model: ModelSpec, sampler: Sampler) -> AbstractContextManager[ScoreAll | None]:
        """What scores beginnings, each with its prompt; None where nothing does. The sampler is open on `model`."""
        ...

    def must_fit(self, model: ModelSpec) -> None:
        """UserError, before any model is loaded, where the model has not what the scorer looks at."""
        ...


def knowing(scorer: StepScorer, asked: Asked) -> StepScorer:
    """The scorer that is opened: where it wants to know what is asked, told of it."""
    tell: Any = getattr(scorer, "knowing", None)
    ready: StepScorer = tell(asked) if tell else scorer
    return ready


def of_worker(scorer: StepScorer, name: str) -> StepScorer:
    """The scorer that one of several workers opens: one that keeps a transcript has a folder there for each."""
    apart: Any = getattr(scorer, "of_worker", None)
    own: StepScorer = apart(name) if apart and name else scorer
    return own


class Aggregate(Enum):
    """How the scores of a response's steps become one."""

    last = "last"
    """That of the last step: what came before counts as far as it shows there."""
    min = "min"
    """The lowest: one bad step spoils a response."""
    mean = "mean"
    """Of logarithms too, which is the geometric mean."""
    product = "product"
    """Of logarithms the sum. Falls with every step."""

    def __call__(self, by_step: Sequence[float], log: bool) -> float:
        """One number of the scores of at least one step, which are logarithms or probabilities."""
        if self is Aggregate.last:
            return by_step[-1]
        if self is Aggregate.min:
            return min(by_step)
        if self is Aggregate.mean:
            return fsum(by_step) / len(by_step)
        return fsum(by_step) if log else prod(by_step)


def beside(sampler: Sampler, model: ModelSpec) -> AbstractContextManager[LocalSampler]:
    """Another model loaded in this process, on the device and in the number format of a sampler that has its model."""
    if not isinstance(sampler, LocalSampler):
        return TransformersSampler(progress=False).open(model)
    device, dtype = sampler.model.device, str(sampler.model.dtype).removeprefix("torch.")
    known = dtype in {one.value for one in Dtype}
    return TransformersSampler(
        batch_tokens=sampler.batch_tokens,
        dtype=Dtype(dtype) if known else Dtype.auto,
        device=str(device),
        progress=False,
    ).open(model)


def same_tokens(first: Any, second: Any, where: str) -> None:
    """UserError where two models do not read texts as the same tokens."""
    if first.get_vocab() != second.get_vocab():
        raise UserError(f"{where}: has other tokens than the model")
