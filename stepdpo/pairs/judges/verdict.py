"""The verdict of a judge on one solution."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepdpo.pairs.engine.requests import Request


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a solution goes wrong."""

    error: int | None
    """Index from 0 of the first wrong step; None where no step is found wrong."""
    note: str = ""
    """The judge's reasons, where it gives any."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What it took, for the counts of the method that asked."""


JudgeRequests = Generator[Request, Any, Verdict]
