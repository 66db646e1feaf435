"""The settings of `stepdpo pairs`."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepdpo.core.protocols import SamplerSpec, Template
from stepdpo.core.types import Sampling
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.models.load import ModelSpec
from stepdpo.pairs.engine.context import Judge, PairMethod
from stepdpo.pairs.engine.worker import Executor
from stepdpo.pairs.executors.local import LocalExecutor


@dataclass(frozen=True)
class PairsConfig:
    """All settings of one run of `stepdpo pairs`; the parts are built from their own config groups."""

    model: ModelSpec
    task: TaskSpec
    """A dataclass with a `split` and a `limit`."""
    template: Template
    sampler: SamplerSpec
    pairs: PairMethod
    judge: Judge
    crew: Executor = field(default_factory=LocalExecutor)
    """Who works on the problems: this process, or many."""
    n: int = 8
    """Solutions sampled a problem."""
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 512
    """Longest solution; longer ones are not used."""
    limit: int | None = None
    """The first so many problems only, those that are skipped aside."""
    skip: int = 0
    """Leave out so many problems at the beginning: those that earlier pairs were made from."""
    split: str | None = None
    """Which of the task's problems; null takes tinymath's `preference`, other tasks' `train`, never the test ones."""
    live: int = 128
    """Problems worked on together; what they request goes to the sampler in one call."""
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """How solutions are sampled."""
        return Sampling(self.n, self.temperature, self.top_p, self.max_tokens, (), self.seed)

    def __post_init__(self) -> None:
        if self.live < 1:
            raise ValueError("live must be at least 1")
        if self.n < 1 or self.max_tokens < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError("n, max_tokens and limit must be at least 1")
        if self.skip < 0:
            raise ValueError("skip must be at least 0")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("solutions must differ to be paired: temperature above 0, top_p in (0, 1]")
