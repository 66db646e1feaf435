"""What is measured: one side of a comparison, and the work that both sides are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.rows import Row
from benchmarks.shapes import Shape

BETA, ALPHA = 0.1, 0.5


@dataclass(frozen=True)
class Work:
    """One micro-batch of pairs through one loss."""

    shape: Shape
    rows: Sequence[Row]
    loss: str = "dpo"
    """`dpo` or `tdpo2`."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    known: bool = True
    """Compute the reference's numbers. Without, they are made up: enough to measure memory, and no pass is seen."""


@dataclass(frozen=True)
class Side:
    """One implementation, ready to run."""

    name: str
    step: Callable[[], float]
    """Forward, loss and backward; gradients are left on the model. Returns the loss."""
    prepare: Callable[[], None] | None
    """The reference pass that happens once before an epoch; none where the reference is asked at every step."""
    model: Any
    """The policy."""
