"""A decoder that draws, under several seeds: how much of an accuracy is luck of the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.evaluation.identity import option
from stepdpo.generation.decoded import Decoder

Seeds = int | list[int] | None
"""How many, from the decoder's own on; or which; None for the decoder as it is, whose attempts carry no seed."""


def check_seeds(seeds: Seeds) -> None:
    """ValueError for what names no seeds."""
    numbers = seeds if isinstance(seeds, list) else [0]
    if not numbers or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in numbers):
        raise ValueError(f"seeds: expected a number from 1, or a list of numbers from 0, got {seeds!r}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds: each once, got {seeds!r}")
    if not isinstance(seeds, list | None) and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ValueError(f"seeds: expected a number from 1, or a list of numbers from 0, got {seeds!r}")


def under_seeds(decode: Decoder, seeds: Seeds) -> tuple[tuple[int | None, Decoder], ...]:
    """The decoder under each seed. UserError for several seeds of one that draws nothing."""
    if seeds is None:
        return ((None, decode),)
    given: Any = decode  # a dataclass like every decoder
    if not getattr(given, "temperature", 0) or not hasattr(given, "seed"):
        at = " at temperature 0" if hasattr(given, "temperature") else ""
        raise UserError(
            f"seeds: decode={option(decode)}{at} draws nothing, and would answer alike under all; leave seeds= out"
        )
    numbers: Sequence[int] = seeds if isinstance(seeds, list) else range(given.seed, given.seed + seeds)
    return tuple((seed, replace(given, seed=seed)) for seed in numbers)
