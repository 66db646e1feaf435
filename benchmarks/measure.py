"""One case measured: first a counted warm-up of every side, then rounds in turn; nothing is left out or picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import SIDES, Case
from benchmarks.flops import counted
from benchmarks.sides import Side, Work
from benchmarks.timing import Clock, interleaved


@dataclass(frozen=True)
class Measured:
    """One side of a case."""

    clock: Clock
    flops: int
    """Of a step."""
    pass_flops: int
    """Of the reference pass before an epoch."""
    loss: float
    gradient: list[Tensor]


def measured(work: Work, names: Sequence[str], rounds: int, epoch: bool) -> dict[str, Measured]:
    """Every named side on the same work, in one process and in turn."""
    sides = [SIDES[name](work) for name in names]
    first = {side.name: _warm(side, epoch) for side in sides}
    clocks = interleaved(sides, rounds, epoch)
    return {name: Measured(clocks[name], *first[name]) for name in first}


def _warm(side: Side, epoch: bool) -> tuple[int, int, float, list[Tensor]]:
    pass_flops = counted(side.prepare)[0] if epoch and side.prepare is not None else 0
    flops, loss = counted(side.step)
    gradient = [p.grad.detach().clone() for p in side.model.parameters()]
    side.model.zero_grad(set_to_none=True)
    return flops, pass_flops, float(loss), gradient


def apart_by(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest difference of two gradients, over the largest entry of the second."""
    largest = max(float(g.abs().max()) for g in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest


def result(case: Case, of: str, ours: Measured, theirs: Measured, peer: str, floor: int) -> dict[str, Any]:
    """The figures of one comparison; `of` is `step` or `epoch`. Ratios are theirs over ours: larger is better."""
    whole = of == "epoch"
    our_flops, their_flops = (m.flops + (m.pass_flops if whole else 0) for m in (ours, theirs))
    return {
        "case": case.name + ("_epoch" if whole else ""),
        "against": peer,
        "ours_s": ours.clock.wall(of),
        "theirs_s": theirs.clock.wall(of),
        "ratio": theirs.clock.wall(of) / ours.clock.wall(of),
        "ours_cpu_s": ours.clock.cpu(of),
        "theirs_cpu_s": theirs.clock.cpu(of),
        "cpu_ratio": theirs.clock.cpu(of) / ours.clock.cpu(of),
        "ours_flops": our_flops,
        "theirs_flops": their_flops,
        "flops_ratio": their_flops / our_flops,
        "floor_ratio": our_flops / floor if not whole else None,
        "ours_peak_mb": None,
        "theirs_peak_mb": None,
        "loss_diff": abs(ours.loss - theirs.loss) / abs(theirs.loss),
        "gradient_diff": apart_by(ours.gradient, theirs.gradient),
        "ours_rounds_s": [wall for wall, _ in getattr(ours.clock, of)],
        "theirs_rounds_s": [wall for wall, _ in getattr(theirs.clock, of)],
        "threads": torch.get_num_threads(),
    }
