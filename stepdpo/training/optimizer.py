"""The optimiser's numbers and the learning-rate schedule, as plain functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from stepdpo.core.ranges import at_least, positive, within


class Schedule(Enum):
    """How the learning rate goes on after the warm-up."""

    cosine = "cosine"
    """Down to 0 along half a cosine."""
    linear = "linear"
    """Down to 0 along a line."""
    constant = "constant"
    """At its peak."""


class Rise(Enum):
    """Where the warm-up begins."""

    even = "even"
    """At its first share of the peak: the last of `n` updates has the peak, and none is lost."""
    official = "official"
    """At 0, as in transformers' schedules, by which the published runs were made: the first update changes nothing."""


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with a warm-up and a schedule."""

    lr: float = 5e-7
    """Peak learning rate; Step-DPO uses 5e-7, TDPO 5e-6."""
    schedule: Schedule = Schedule.cosine
    warmup: float = 0.1
    """Share of all updates, rounded up, over which the rate rises linearly to its peak; Step-DPO 0.1."""
    rise: Rise = Rise.even
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 for no clipping."""

    def __post_init__(self) -> None:
        at_least(0, lr=self.lr, clip=self.clip, weight_decay=self.weight_decay)
        within(0, 1, warmup=self.warmup)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        positive(eps=self.eps)

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of update number `step` (from 0) of `total`."""
        # Rounded up, as in the recipes that are reproduced: any warm-up at all takes at least one update.
        rising = math.ceil(self.warmup * total)
        if step < rising:
            return self.lr * (step + (self.rise is Rise.even)) / rising
        done = (step - rising) / max(1, total - rising)
        if self.schedule is Schedule.cosine:
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule is Schedule.linear:
            return self.lr * (1 - done)
        return self.lr
