"""Works small enough for a test: two layers, a few dozen tokens."""

from __future__ import annotations

from benchmarks import rows
from benchmarks.shapes import Shape
from benchmarks.sides import Work

SHAPE = Shape("tiny", vocab=301, hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48)
LENGTHS = [rows.Lengths(5, 7, 6, 4, 3, 8), rows.Lengths(6, 20, 5, 9, 4, 3), rows.Lengths(4, 1, 3, 3, 2, 9)]
LEVELS = {
    "step": rows.step_rows(LENGTHS, SHAPE.vocab),
    "instance": rows.instance_rows(LENGTHS, SHAPE.vocab),
    "chain": rows.chain_rows(2, SHAPE.vocab),
}


def work(level: str = "step", loss: str = "dpo") -> Work:
    return Work(SHAPE, LEVELS[level], loss, grouped=level == "chain")


def sizes(level: str = "step") -> tuple[int, int, int]:
    """(padded rows, their length, scored tokens of all rows)."""
    drawn = LEVELS[level]
    longest = max(len(row.prompt) + len(side) for row in drawn for side in (row.chosen, row.rejected))
    return 2 * len(drawn), longest, sum(len(row.chosen) + len(row.rejected) for row in drawn)
