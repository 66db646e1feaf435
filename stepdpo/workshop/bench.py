"""All it takes to work on problems, as a value: it can be sent to another process and opened there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stepdpo.grade.pool import graders
from stepdpo.grade.strict import Strict
from stepdpo.records import Problem
from stepdpo.workshop.asks import Finished
from stepdpo.workshop.drive import Desk, drive
from stepdpo.workshop.tools import Tools


@dataclass(frozen=True)
class Bench:
    """A way of making pairs with the model and the tools it works with, none of them opened yet."""

    source: Any
    """The way of making pairs."""
    tools: Tools
    model: Any
    sampler: Any
    """A SamplerSpec."""

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Load the model, start the graders."""
        quiet = replace(self.sampler, progress=False) if hasattr(self.sampler, "progress") else self.sampler
        with quiet.open(self.model) as sampler, graders() as grade_many:
            desk = Desk(sampler, self.tools.sampling, lambda items: grade_many(items, Strict()))
            yield Opened(self.source, self.tools, desk)


@dataclass(frozen=True)
class Opened:
    """Ready to work."""

    source: Any
    tools: Tools
    desk: Desk

    @property
    def facts(self) -> dict[str, Any]:
        """What the sampler says of itself."""
        return dict(getattr(self.desk.sampler, "facts", {}))

    def work(self, group: Sequence[Problem]) -> Iterator[Finished]:
        """The problems of a group, all worked on together, each as soon as it is done."""
        return drive(group, self.source, self.tools, self.desk)
