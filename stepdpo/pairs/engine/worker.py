"""All it takes to work on problems, as a value: it can be sent to another process and opened there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepdpo.core.types import Problem, Sampling
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.pairs.engine.context import Tools
from stepdpo.pairs.engine.requests import Finished
from stepdpo.pairs.engine.scheduler import Desk, drive


@dataclass(frozen=True)
class Bench:
    """A way of making pairs with the model and the tools it works with, none of them opened yet."""

    source: Any
    """The way of making pairs."""
    tools: Tools | None
    """None for a source that asks for nothing."""
    model: Any
    sampler: Any
    """A SamplerSpec."""
    sampling: Sampling
    folder: Path
    """Where a judge keeps what was said to its model."""

    @contextmanager
    def open(self, worker: str = "") -> Iterator[Opened]:
        """Load the model, start the graders, connect to the judge's model. One of several workers has a name."""
        if self.tools is None:
            yield Opened(self.source, None, Desk(None, self.sampling, lambda items: []))
            return
        quiet = replace(self.sampler, progress=False) if hasattr(self.sampler, "progress") else self.sampler
        with (
            self._consulting(worker) as consult,
            quiet.open(self.model) as sampler,
            graders() as grade_many,
        ):
            desk = Desk(sampler, self.sampling, lambda items: grade_many(items, Strict()), consult)
            yield Opened(self.source, self.tools, desk)

    def _consulting(self, worker: str) -> AbstractContextManager[Any]:
        """The judge's model, where the source needs a judge and it has a model of its own."""
        judge = self.tools.judge if self.tools and "judge" in self.source.needs else None
        if judge is None or not hasattr(judge, "open"):
            return nullcontext()
        folder = self.folder / "workers" / worker if worker else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        opened: AbstractContextManager[Any] = judge.open(folder)
        return opened


@dataclass(frozen=True)
class Opened:
    """Ready to work."""

    source: Any
    tools: Tools | None
    desk: Desk

    @property
    def facts(self) -> dict[str, Any]:
        """What sampler and judge say of themselves."""
        return {**getattr(self.desk.sampler, "facts", {}), **getattr(self.desk.consult, "facts", {})}

    def work(self, group: Sequence[Problem]) -> Iterator[Finished]:
        """The problems of a group, all worked on together, each as soon as it is done."""
        return drive(group, self.source, self.tools, self.desk)
