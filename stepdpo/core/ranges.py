"""Numbers that lie where they may: a part checks its settings so, and each is refused under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite


def positive(**values: float | None) -> None:
    """ValueError that names the first value that is not above 0, or no number; one that is not given is passed over."""
    _refuse(values, lambda value: value > 0, "must be positive")


def at_least(low: int, **values: float | None) -> None:
    """The same for values below `low`."""
    _refuse(values, lambda value: value >= low, f"must be at least {low}" if low else "must not be negative")


def within(low: float, high: float, **values: float | None) -> None:
    """The same for values outside [low, high]."""
    _refuse(values, lambda value: low <= value <= high, f"must lie in [{low:g}, {high:g}]")


def below_one(**values: float | None) -> None:
    """The same for values outside [0, 1)."""
    _refuse(values, lambda value: 0 <= value < 1, "must lie in [0, 1)")


def _refuse(values: Mapping[str, float | None], right: Callable[[float], bool], text: str) -> None:
    for name, value in values.items():
        if value is not None and not (isfinite(value) and right(value)):
            raise ValueError(f"{name} {text}, got {value}")
