"""One worker: this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from stepdpo.crew.protocols import R, T, Worker, WorkerSpec


@dataclass(frozen=True)
class LocalExecutor:
    """Group after group in this process, on one device."""

    @contextmanager
    def open(self, spec: WorkerSpec[T, R]) -> Iterator[OpenLocalExecutor[T, R]]:
        """Load the model into this process."""
        with spec.open() as worker:
            yield OpenLocalExecutor(worker)


@dataclass(frozen=True)
class OpenLocalExecutor(Generic[T, R]):
    """This process, ready to work."""

    worker: Worker[T, R]

    @property
    def count(self) -> int:
        return 1

    @property
    def provenance(self) -> dict[str, Any]:
        return self.worker.provenance

    def finish(self, groups: Iterable[Sequence[T]]) -> Iterator[R]:
        """The results of all groups, each as soon as it is there."""
        for group in groups:
            yield from self.worker.work(group)
