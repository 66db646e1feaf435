"""Both sides in one run, turn and turn about: A B A B ..., and the median of the rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.sides import Side


@dataclass
class Clock:
    """Seconds of every round of one side: (wall, CPU)."""

    step: list[tuple[float, float]] = field(default_factory=list)
    epoch: list[tuple[float, float]] = field(default_factory=list)
    """The reference pass and the step after it, where passes are timed."""

    def wall(self, of: str) -> float:
        return median(wall for wall, _ in getattr(self, of))

    def cpu(self, of: str) -> float:
        return median(cpu for _, cpu in getattr(self, of))


def interleaved(sides: Sequence[Side], rounds: int, passes: bool = False) -> dict[str, Clock]:
    """Time every side once a round; with `passes` the pass that fills a cache, too."""
    clocks = {side.name: Clock() for side in sides}
    for _ in range(rounds):
        for side in sides:
            clock = clocks[side.name]
            side.model.zero_grad(set_to_none=True)
            gc.collect()
            start = _now()
            if passes and side.prepare is not None:
                side.prepare()
            between = _now()
            side.step()
            end = _now()
            clock.step.append((end[0] - between[0], end[1] - between[1]))
            clock.epoch.append((end[0] - start[0], end[1] - start[1]))
            side.model.zero_grad(set_to_none=True)
    return clocks


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
