"""How seconds grow with pairs, with the prefix, and with the leaves of one tree; and the lengths of real rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import peer_trl, rows
from benchmarks.cases import SIDES
from benchmarks.measure import comparison
from benchmarks.shapes import BENCH_32K
from benchmarks.sides import Work
from benchmarks.timing import interleaved

VOCAB = BENCH_32K.vocab
ROUNDS = 3
RECORDED = Path("../shared/data/timing_pairs.jsonl")
RECORDED_PAIRS = 4


def curves() -> list[dict[str, Any]]:
    """Three plots' worth of points: x, and the median seconds of every side."""
    other = "trl_best" if peer_trl.installed() else "classical"
    pairs = [(n, Work(BENCH_32K, rows.step_rows(rows.uniform(n), VOCAB))) for n in (1, 2, 4)]
    prefix = [(n, Work(BENCH_32K, rows.step_rows([rows.Lengths(0, n, 40, 40, 0, 0)], VOCAB))) for n in (100, 300, 900)]
    leaves = [(2 * n, Work(BENCH_32K, rows.chain_rows(n, VOCAB), grouped=True)) for n in (1, 2, 4, 8)]
    return [
        _curve("pairs", "pairs in a micro-batch", pairs, ("ours", other)),
        _curve("prefix", "tokens before the step, one pair", prefix, ("ours", other)),
        _curve("leaves", "leaves of one tree", leaves, ("ours", "pairs")),
    ]


def _curve(name: str, axis: str, works: Sequence[tuple[int, Work]], sides: Sequence[str]) -> dict[str, Any]:
    points = []
    for x, work in works:
        found = interleaved([SIDES[side](work) for side in sides], ROUNDS, epoch=False)
        points.append({"x": x, "s": {side: found[side].seconds(False) for side in sides}})
    return {"name": name, "axis": axis, "points": points}


def recorded() -> dict[str, Any] | None:
    """Step DPO at 32k on the lengths of real rows, where they are at hand and TRL is."""
    if not RECORDED.exists() or not peer_trl.installed():
        return None
    drawn = rows.recorded(RECORDED, RECORDED_PAIRS)
    work = Work(BENCH_32K, rows.step_rows(drawn, VOCAB))
    found = interleaved([SIDES[side](work) for side in ("ours", "trl_best")], ROUNDS, epoch=False)
    figures = comparison(found["ours"], found["trl_best"], epoch=False, floor=1)
    kept = ("ours_s", "theirs_s", "ratio", "cpu_ratio", "flops_ratio", "loss_diff")
    prefix = sum(n.question + n.steps for n in drawn) / len(drawn)
    step = sum(n.chosen + n.rejected for n in drawn) / len(drawn) / 2
    return {"pairs": RECORDED_PAIRS, "prefix_mean": prefix, "step_mean": step, **{key: figures[key] for key in kept}}
