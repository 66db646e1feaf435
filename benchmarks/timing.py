"""Both sides in one run, turn and turn about: A B A B ...; every round counts, none is picked.

In the first round the dispatcher's operations are counted, which costs about a hundredth of a step.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import Tensor

from benchmarks.flops import counted
from benchmarks.sides import Side


@dataclass(frozen=True)
class Part:
    """One action, done once."""

    wall: float
    cpu: float
    """Seconds of all threads."""
    flops: int
    """0 where they were not counted."""


@dataclass(frozen=True)
class Measured:
    """One side of a case: a step in every round, and the reference pass before it where epochs are timed."""

    steps: list[Part]
    passes: list[Part]
    loss: float
    gradient: list[Tensor]

    def rounds(self, epoch: bool, unit: str) -> list[float]:
        """`wall` or `cpu` seconds of every round; those of an epoch are pass and step together."""
        passes = self.passes if epoch and self.passes else [Part(0.0, 0.0, 0)] * len(self.steps)
        return [getattr(a, unit) + getattr(b, unit) for a, b in zip(passes, self.steps, strict=True)]

    def seconds(self, epoch: bool, unit: str = "wall") -> float:
        """The median round."""
        return median(self.rounds(epoch, unit))

    def flops(self, epoch: bool) -> int:
        return self.steps[0].flops + (self.passes[0].flops if epoch and self.passes else 0)


def interleaved(sides: Sequence[Side], rounds: int, epoch: bool) -> dict[str, Measured]:
    """Every side once a round."""
    found: dict[str, Measured] = {}
    for number in range(rounds):
        for side in sides:
            # Outside the timed part: the garbage of the side before is not this one's cost.
            side.model.zero_grad(set_to_none=True)
            gc.collect()
            passes = [_part(side.prepare, number == 0)[0]] if epoch and side.prepare is not None else []
            step, loss = _part(side.step, number == 0)
            if number == 0:
                gradient = [weight.grad.detach().clone() for weight in side.model.parameters()]
                found[side.name] = Measured([], [], float(loss), gradient)
            found[side.name].passes.extend(passes)
            found[side.name].steps.append(step)
            side.model.zero_grad(set_to_none=True)
    return found


def _part(action: Callable[[], Any], count: bool) -> tuple[Part, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    flops, value = counted(action) if count else (0, action())
    return Part(time.perf_counter() - wall, time.process_time() - cpu, flops), value
