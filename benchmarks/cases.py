"""What is measured against what, in which micro-batches, and the figures that should come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import ours, peer_classical, peer_trl, rows
from benchmarks.shapes import BENCH_32K, BENCH_152K, Shape
from benchmarks.sides import Side, Work

SIDES: dict[str, Callable[[Work], Side]] = {
    "ours": ours.ours,
    "pairs": ours.pairs,
    "trl": peer_trl.trl,
    "trl_best": peer_trl.trl_best,
    "classical": peer_classical.classical,
}
TITLES = {
    "trl": "TRL as shipped",
    "trl_best": "TRL at its best",
    "classical": "classical, full logits",
    "pairs": "the same pairs one by one",
    "floor": "floor",
}


@dataclass(frozen=True)
class Case:
    """One micro-batch of pairs, one loss, and who else computes it."""

    name: str
    shape: Shape
    level: str
    """`step`, `instance`, or `chain`: all pairs of one problem."""
    loss: str
    pairs: int
    """Pairs of the micro-batch; all of them are one micro-batch on every side."""
    against: tuple[str, ...]
    quick: int = 0
    """Pairs in `make bench-quick`; 0 leaves the case out."""
    epoch: bool = False
    """Time a whole epoch too: the reference pass and the step."""
    memory: int = 0
    """Pairs of the micro-batch whose memory is measured; 0 for none."""
    exact: int = 0
    """Pairs of the micro-batch that is computed in fp64 too, to see whose rounding a difference is; 0 for none."""

    def rows(self, pairs: int) -> list[rows.Row]:
        if self.level == "chain":
            return rows.chain_rows(pairs, self.shape.vocab)
        make = rows.step_rows if self.level == "step" else rows.instance_rows
        return make(rows.uniform(pairs), self.shape.vocab)

    def work(self, pairs: int, known: bool = True) -> Work:
        return Work(self.shape, self.rows(pairs), self.loss, grouped=self.level == "chain", known=known)


CASES = (
    Case("step_dpo_32k", BENCH_32K, "step", "dpo", 8, ("trl", "trl_best"), quick=4, epoch=True, exact=1),
    Case("step_dpo_152k", BENCH_152K, "step", "dpo", 2, ("trl", "trl_best"), memory=2),
    Case("step_tdpo2_32k", BENCH_32K, "step", "tdpo2", 4, ("classical",), quick=2, exact=1),
    Case("step_tdpo2_152k", BENCH_152K, "step", "tdpo2", 2, ("classical",), memory=2),
    Case("instance_dpo_32k", BENCH_32K, "instance", "dpo", 4, ("trl_best",), exact=1),
    Case("instance_tdpo2_32k", BENCH_32K, "instance", "tdpo2", 2, ("classical",), exact=1),
    Case("one_tree_8", BENCH_32K, "chain", "dpo", 8, ("pairs",), quick=8),
)
NAMES = (
    "step_dpo_32k",
    "step_dpo_32k_epoch",
    "step_dpo_152k",
    "step_tdpo2_32k",
    "step_tdpo2_152k",
    "instance_dpo_32k",
    "instance_tdpo2_32k",
    "one_tree_8",
    "floor_7b",
)
"""Every `case` that results.json may hold."""


@dataclass(frozen=True)
class Target:
    """What a figure should be."""

    case: str
    against: str
    figure: str
    """Key of a result, or `memory`: our peak over theirs."""
    bound: float
    at_least: bool = True

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


TARGETS = (
    Target("step_dpo_32k", "trl", "ratio", 8),
    Target("step_dpo_32k", "trl_best", "ratio", 2.7),
    Target("step_dpo_32k_epoch", "trl", "ratio", 5),
    Target("step_dpo_32k_epoch", "trl_best", "ratio", 2),
    Target("step_dpo_152k", "trl", "ratio", 7),
    Target("step_dpo_152k", "trl_best", "ratio", 1.9),
    Target("step_tdpo2_32k", "classical", "ratio", 5.3),
    Target("step_tdpo2_152k", "classical", "ratio", 6.5),
    Target("instance_dpo_32k", "trl_best", "ratio", 1.8),
    Target("instance_tdpo2_32k", "classical", "ratio", 2.8),
    Target("one_tree_8", "pairs", "ratio", 2.5),
    Target("step_dpo_32k", "floor", "floor_ratio", 1.12, at_least=False),
    Target("floor_7b", "floor", "floor_ratio", 1.05, at_least=False),
    Target("step_dpo_152k", "trl_best", "memory", 0.6, at_least=False),
    Target("step_tdpo2_152k", "classical", "memory", 1 / 8, at_least=False),
)
