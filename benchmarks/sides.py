"""What is measured: one side of a comparison, and the work that both sides are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    grouped: bool = False
    """All rows belong to one problem."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    known: bool = True
    """Compute the reference's numbers. Without, they are placeholders: enough to measure memory, with no pass run."""


@dataclass(frozen=True)
class Side:
    """One implementation, ready to run."""

    name: str
    loss: Callable[[], Tensor]
    """Forward and loss, ready for backward."""
    prepare: Callable[[], Any] | None
    """The reference pass that happens once before an epoch; none where the reference is run at every step."""
    model: Any
    """The policy, on which gradients are left."""

    def step(self) -> Tensor:
        """Forward, loss and backward: what is timed."""
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
