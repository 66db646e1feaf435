"""What a judge says of one solution."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from stepdpo.workshop.asks import Ask


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a solution goes wrong."""

    error: int | None
    """Index from 0 of the first wrong step; None where no step is found wrong."""
    note: str = ""
    """The judge's reasons, where it gives any."""


Judging = Generator[Ask, Any, Verdict]
