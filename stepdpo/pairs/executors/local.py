"""One worker: this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import ProblemResult
from stepdpo.pairs.engine.worker import Worker, WorkerContext


@dataclass(frozen=True)
class LocalExecutor:
    """Group after group in this process, on one device."""

    @contextmanager
    def open(self, worker_context: WorkerContext) -> Iterator[OpenLocalExecutor]:
        """Load the model into this process."""
        with worker_context.open() as worker:
            yield OpenLocalExecutor(worker)


@dataclass(frozen=True)
class OpenLocalExecutor:
    """This process, ready to work."""

    worker: Worker

    @property
    def provenance(self) -> dict[str, Any]:
        return self.worker.provenance

    def finish(self, groups: Iterable[list[Problem]]) -> Iterator[ProblemResult]:
        """The results of all problems, each as soon as it is there."""
        for group in groups:
            yield from self.worker.work(group)
