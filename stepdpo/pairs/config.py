"""The settings of `stepdpo pairs`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.core.protocols import SamplerSpec, Template
from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.types import Sampling
from stepdpo.crew.local import LocalExecutor
from stepdpo.crew.protocols import Executor
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.models.load import ModelSpec
from stepdpo.pairs.engine.context import Judge, PairMethod
from stepdpo.tinymath.problems import check_split
from stepdpo.tinymath.task import TinymathTask


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
        at_least(1, n=self.n, max_tokens=self.max_tokens, limit=self.limit, live=self.live)
        at_least(0, skip=self.skip, seed=self.seed)
        positive(temperature=self.temperature, top_p=self.top_p)  # solutions must differ to be paired
        within(0, 1, top_p=self.top_p)
        if self.split is not None and isinstance(self.task, TinymathTask):
            check_split(self.split)


def refuse_without_checker(spec: PairsConfig) -> None:
    """UserError when the method, or its judge, needs a checker and the task has none."""
    if getattr(spec.task, "shots", 0):
        raise UserError("task.shots: worked examples stand before the questions of `stepdpo eval` alone")
    needs = spec.pairs.needs | (spec.judge.needs if "judge" in spec.pairs.needs else frozenset())
    if "checker" not in needs or spec.task.checker is not None:
        return
    files = sorted((conf() / "task").glob("*.yaml"))
    having = [
        file.stem for file in files if re.search(r"^checker:\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    known = f"tasks that have one: {', '.join(having)}"
    raise UserError(f"task={spec.task.name} has no exact step checker, which these pairs need; {known}")
