"""Two sides of a case -> the figures of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.timing import Measured


def comparison(ours: Measured, theirs: Measured, epoch: bool, floor: int) -> dict[str, Any]:
    """Ratios are theirs over ours, so larger is better; `floor` are the operations a step cannot do without."""
    our_flops, their_flops = ours.flops(epoch), theirs.flops(epoch)
    figures: dict[str, Any] = {
        "ours_s": ours.seconds(epoch),
        "theirs_s": theirs.seconds(epoch),
        "ratio": theirs.seconds(epoch) / ours.seconds(epoch),
        "ours_cpu_s": ours.seconds(epoch, "cpu"),
        "theirs_cpu_s": theirs.seconds(epoch, "cpu"),
        "cpu_ratio": theirs.seconds(epoch, "cpu") / ours.seconds(epoch, "cpu"),
        "ours_flops": our_flops,
        "theirs_flops": their_flops,
        "flops_ratio": their_flops / our_flops,
        "floor_ratio": None if epoch else our_flops / floor,
        "ours_peak_mb": None,
        "theirs_peak_mb": None,
        "loss_diff": abs(ours.loss - theirs.loss) / abs(theirs.loss),
        "gradient_diff": apart_by(ours.gradient, theirs.gradient),
    }
    for name, side in (("ours", ours), ("theirs", theirs)):
        figures[f"{name}_rounds_s"] = side.rounds(epoch, "wall")
        figures[f"{name}_rounds_cpu_s"] = side.rounds(epoch, "cpu")
    return figures


def counted_only(operations: int, floor: int) -> dict[str, Any]:
    """A comparison with the floor, which nobody can run."""
    untimed = dict.fromkeys(("ours_s", "theirs_s", "ratio", "ours_peak_mb", "theirs_peak_mb", "loss_diff"))
    return {
        **untimed,
        "ours_flops": operations,
        "theirs_flops": floor,
        "flops_ratio": floor / operations,
        "floor_ratio": operations / floor,
    }


def apart_by(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest difference of two gradients, over the largest entry of the second."""
    largest = max(float(g.abs().max()) for g in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest
