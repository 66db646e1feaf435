"""What a task offers that asks where solutions go wrong: solutions whose first wrong step is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from stepdpo.core.types import Problem
from stepdpo.data.problem_stream import TaskSpec


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """A solution, and where it goes wrong."""

    id: str
    problem: Problem
    head: str
    """What stands before the first step."""
    steps: tuple[str, ...]
    """Head and steps together are its text."""
    first_error: int
    """From 0; -1 where every step is right."""
    subset: str = ""
    """Which part of the benchmark it belongs to: figures are told of each, and of their mean."""
    correct: bool | None = None
    """Whether its final answer is right; None where nobody says."""


@runtime_checkable
class LabelledTask(TaskSpec, Protocol):
    """A task of the group `task` that asks where solutions go wrong, and not for solutions."""

    @property
    def threshold(self) -> float | None:
        """A score below it makes a step wrong; None to choose it on the solutions held out for that."""
        ...

    @property
    def heldout(self) -> float:
        """The share of the problems that are held out for that, where it must be."""
        ...

    @property
    def seed(self) -> int:
        """Chooses them."""
        ...

    def solutions(self) -> Sequence[LabelledSolution]:
        """All of them, in their order."""
        ...


def is_labelled(task: object) -> TypeGuard[LabelledTask]:
    """Whether a task asks where solutions go wrong."""
    return isinstance(task, LabelledTask)
