"""One worker: this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import Finished
from stepdpo.pairs.engine.worker import Bench, Opened


@dataclass(frozen=True)
class Here:
    """Group after group in this process, on one device."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Alone]:
        """Load the model."""
        with bench.open() as opened:
            yield Alone(opened)


@dataclass(frozen=True)
class Alone:
    """This process, ready to work."""

    opened: Opened

    @property
    def facts(self) -> dict[str, Any]:
        return self.opened.facts

    def finish(self, groups: Iterable[list[Problem]]) -> Iterator[Finished]:
        """What comes of the problems, as it comes."""
        for group in groups:
            yield from self.opened.work(group)
