"""The processes that work together, as far as their parts must know: who they are, and what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Processes(Protocol):
    """What a training engine says of itself to parts that know no tensors.

    Its methods are collective: every process must call them equally often.
    """

    @property
    def rank(self) -> int: ...

    @property
    def local_rank(self) -> int:
        """Rank among the processes of this machine."""
        ...

    @property
    def world_size(self) -> int: ...

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over the processes, in double precision."""
        ...

    def barrier(self) -> None:
        """Wait for every process."""
        ...


def any_process(processes: Processes, here: bool) -> bool:
    """Whether it is so on any process."""
    return bool(processes.all_reduce_sum([float(here)])[0])


@dataclass(frozen=True)
class OneProcess:
    """No others."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def barrier(self) -> None: ...
