"""No scorer: for decoders that choose nothing, or by votes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.protocols import Sampler
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class NoScorer:
    """Scores nothing."""

    log: ClassVar[bool] = False

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[None]:
        yield None

    def must_fit(self, model: ModelSpec) -> None:
        """Every model does."""
