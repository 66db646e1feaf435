"""Problems that are read or made while they are used: what every task gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def check_limit(limit: int | None) -> None:
    """ValueError unless it is a number from 1, or none."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected a number from 1, got {limit}")
