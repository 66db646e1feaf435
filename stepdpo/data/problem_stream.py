"""What every task offers: its problems, as a list or as a stream that is read or made while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Problem


@dataclass(frozen=True)
class ProblemStream:
    """Problems of known number that are read or made while they are used: few of them are in memory."""

    count: int
    again: Callable[[], Iterator[Problem]]
    """Begins anew."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Problem]:
        return self.again()


class TaskSpec(Protocol):
    """Any part of the config group `task`; one that also offers `stream() -> ProblemStream` is read as it is used.

    One with worked examples to show before a question offers `examples() -> Shots | None`.
    """

    @property
    def name(self) -> str:
        """What results are filed under."""
        ...

    @property
    def checker(self) -> Checker | None:
        """The exact step checker, for a task that has one."""
        ...

    def problems(self) -> Sequence[Problem]:
        """All problems, in their order."""
        ...


def check_limit(limit: int | None) -> None:
    """ValueError unless it is a number from 1, or none."""
    at_least(1, limit=limit)
