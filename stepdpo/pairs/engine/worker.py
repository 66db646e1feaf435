"""All it takes to work on problems, as a value: it can be sent to another process and opened there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepdpo.core.protocols import SamplerSpec
from stepdpo.core.types import Problem, Sampling
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.models.load import ModelSpec, without_progress_bars
from stepdpo.pairs.engine.context import Context, PairMethod
from stepdpo.pairs.engine.requests import ProblemResult
from stepdpo.pairs.engine.scheduler import Scheduler


@dataclass(frozen=True)
class WorkerContext:
    """A method with the model and the parts it works with, none of them opened yet."""

    method: PairMethod
    context: Context | None
    """None for a method that requests nothing: then neither model nor graders are opened."""
    model: ModelSpec
    sampler: SamplerSpec
    folder: Path
    """Where a judge keeps the transcript of its model."""

    @property
    def devices(self) -> int | None:
        """Those that the sampler takes; a method that requests nothing takes none."""
        devices: int | None = getattr(self.sampler, "devices", 1) if self.context else 0
        return devices

    @contextmanager
    def open(self, name: str = "") -> Iterator[Worker]:
        """Load the model, start the graders, connect to the judge's model. One of several workers has a name."""
        without_progress_bars()  # wherever this is
        if self.context is None:
            yield Worker(self.method, None, Scheduler(None, Sampling(), lambda items: []))
            return
        shown: Any = self.sampler  # a dataclass like every spec
        # A terminal has room for one bar, and problems have it: a sampler's own would count one call.
        quiet: SamplerSpec = replace(shown, progress=False) if hasattr(shown, "progress") else shown
        with (
            # The judge first: a wrong key is known at once, before a model is loaded for minutes.
            self._asking_judge(name) as ask_judge,
            quiet.open(self.model) as sampler,
            graders() as grade_many,
        ):
            sampling = self.context.sampling
            scheduler = Scheduler(sampler, sampling, lambda items: grade_many(items, Strict()), ask_judge)
            yield Worker(self.method, self.context, scheduler)

    def _asking_judge(self, name: str) -> AbstractContextManager[Any]:
        """The judge's model, where the method needs a judge and it has a model of its own."""
        judge = self.context.judge if self.context and "judge" in self.method.needs else None
        if judge is None or not hasattr(judge, "open"):
            return nullcontext()
        # A folder a worker: two processes that append to one transcript would tear each other's lines.
        folder = self.folder / "workers" / name if name else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        opened: AbstractContextManager[Any] = judge.open(folder)
        return opened


@dataclass(frozen=True)
class Worker:
    """Model, graders and judge, opened and ready to work."""

    method: PairMethod
    context: Context | None
    scheduler: Scheduler

    @property
    def provenance(self) -> dict[str, Any]:
        """What sampler and judge say of themselves."""
        return {
            **getattr(self.scheduler.sampler, "provenance", {}),
            **getattr(self.scheduler.ask_judge, "provenance", {}),
        }

    def work(self, group: Sequence[Problem]) -> Iterator[ProblemResult]:
        """The results of a group's problems, all worked on together, each as soon as it is there."""
        return self.scheduler.run(group, self.method, self.context)
