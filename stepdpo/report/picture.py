"""Accuracies and their 95 % intervals as a picture in plain text: a line a run, above one common axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from stepdpo.report.render import clean

COLUMNS = 80
"""How wide a picture is: few terminals are narrower."""
LONGEST = 32
"""Names are cut at this, so that half the picture is left for the intervals."""
STEPS = (1, 2, 5, 10, 20)
"""Percentage points between two numbers of the axis: the first that makes no more than MOST of them."""
MOST = 7


def picture(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of rows of `report`, which are of one task, decoder and grader."""
    names = [_shortened(clean(str(row["run"]))) for row in rows]
    label = max(map(cell_len, names))
    width = COLUMNS - label - len("   100.0")
    low, high, step = _axis([100 * row["ci_low"] for row in rows], [100 * row["ci_high"] for row in rows])

    def column(percent: float) -> int:
        return round((percent - low) / (high - low) * (width - 1))

    ticks = {column(percent): str(percent) for percent in range(low, high + 1, step)}
    numbers = [" "] * (width + 2)
    for at, text in ticks.items():
        start = max(0, at - len(text) // 2)
        numbers[start : start + len(text)] = text
    ruler = "".join("┴" if at in ticks else "─" for at in range(width))
    lines = []
    for name, row in zip(names, rows, strict=True):
        left, dot, right = (column(100 * row[key]) for key in ("ci_low", "accuracy", "ci_high"))
        marks = {**dict.fromkeys(ticks, "·"), **dict.fromkeys(range(left, right), "─"), left: "├", right: "┤", dot: "●"}
        interval = "".join(marks.get(at, " ") for at in range(width))
        lines.append(f"{set_cell_size(name, label)}  {interval} {100 * row['accuracy']:5.1f}")
    return [*lines, " " * (label + 2) + ruler, (" " * (label + 2) + "".join(numbers)).rstrip()]


def _axis(lows: Sequence[float], highs: Sequence[float]) -> tuple[int, int, int]:
    """From where to where, and how far apart its numbers are; round numbers, in percent."""
    for step in STEPS:
        low, high = step * math.floor(min(lows) / step), step * math.ceil(max(highs) / step)
        if (high - low) // step < MOST:
            break
    return low, high, step


def _shortened(name: str) -> str:
    return name if cell_len(name) <= LONGEST else f"{set_cell_size(name, LONGEST - 1)}…"
