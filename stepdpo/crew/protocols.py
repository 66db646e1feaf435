"""The seams of this room: what is worked on, what comes of it, a worker, and who puts workers to work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar


class Task(Protocol):
    """What is worked on, such as a problem. Pickled where it is sent to another process, as its result is."""

    @property
    def id(self) -> str: ...


class TaskResult(Protocol):
    """What came of one task."""

    @property
    def problem(self) -> str:
        """The task's id. A task has one result: of several with the same id within a group, the first is taken."""
        ...


T_in = TypeVar("T_in", bound=Task, contravariant=True)
R_out = TypeVar("R_out", bound=TaskResult, covariant=True)
T = TypeVar("T", bound=Task)
R = TypeVar("R", bound=TaskResult)


class Worker(Protocol[T_in, R_out]):
    """Models and whatever else the work takes, opened."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What the work was done with: for the record."""
        ...

    def work(self, group: Sequence[T_in], /) -> Iterator[R_out]:
        """The results of a group, which is worked on together, each as soon as it is there, in any order."""
        ...


class WorkerSpec(Protocol[T_in, R_out]):
    """All it takes to open a worker, as a value: pickled, it is sent to another process and opened there."""

    @property
    def devices(self) -> int | None:
        """GPUs that a worker wants, where there are any; 0 for one that computes on processor cores.

        None for one that only waits for a server: more workers would mean more requests at a time than the server is
        to be sent.
        """
        ...

    def open(self, name: str = "") -> AbstractContextManager[Worker[T_in, R_out]]:
        """Load what there is to load. One of several workers has a name, under which it may keep files."""
        ...


class OpenExecutor(Protocol[T_in, R_out]):
    """An executor that is ready to work."""

    @property
    def count(self) -> int:
        """How many workers it has."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """That of a worker, once one has finished a group."""
        ...

    def finish(self, groups: Iterable[Sequence[T_in]]) -> Iterator[R_out]:
        """The results of all groups, in any order, each as soon as it is there.

        What a worker raises is raised here.
        """
        ...


class Executor(Protocol):
    """Who works: this process, or many."""

    def open(self, spec: WorkerSpec[T, R]) -> AbstractContextManager[OpenExecutor[T, R]]: ...
