"""Accuracy against tokens, as an SVG: points with their standard errors, and lines through the k of n samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.plots import Scale

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 56, 230, 16, 48
COLOURS = ("#3949ab", "#c62828", "#2e7d32", "#6a1b9a", "#ef6c00", "#00838f", "#5d4037", "#455a64")
STEP = 0.1
"""Of accuracy, between two lines across."""
LINE = 13
"""Least distance of two labels."""


def svg(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """`rows`: name, points of (tokens, accuracy, standard error), joined by a line where there are several."""
    points = [point for row in rows for point in row["points"]]
    tokens = [point[0] for point in points]
    low = STEP * math.floor(min(share - error for _, share, error in points) / STEP)
    high = STEP * math.ceil(max(share + error for _, share, error in points) / STEP)
    across = Scale(2.0 ** math.floor(math.log2(min(tokens))), 2.0 ** math.ceil(math.log2(max(tokens))),
                   LEFT, WIDTH - RIGHT)  # fmt: skip

    def up(share: float) -> float:
        return float(round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (share - low) / (high - low), 1))

    parts = [_across(up, low, high), _down(across, title)]
    taken: list[float] = []
    order = sorted(range(len(rows)), key=lambda n: -rows[n]["points"][-1][1])
    for number in order:
        row, colour = rows[number], COLOURS[number % len(COLOURS)]
        places = [(across(x), up(share), up(share + error), up(share - error)) for x, share, error in row["points"]]
        corners = " ".join(f"{x},{y}" for x, y, _, _ in places)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [
            f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{colour}"/>'
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            for x, y, top, bottom in places
        ]
        x, y = places[-1][:2]
        at = max(y, taken[-1] + LINE) if taken else y
        taken.append(at)
        parts.append(
            f'<line x1="{x + 5}" x2="{WIDTH - RIGHT + 6}" y1="{y}" y2="{at}" stroke="#bbb"/>'
            f'<text x="{WIDTH - RIGHT + 9}" y="{at + 4}" fill="{colour}">{row["name"]}</text>'
        )
    font = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _across(up: Callable[[float], float], low: float, high: float) -> str:
    shares = [low + STEP * n for n in range(round((high - low) / STEP) + 1)]
    return "\n".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(share)}" y2="{up(share)}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{up(share) + 4}" text-anchor="end">{100 * share:.0f} %</text>'
        for share in shares
    )


def _down(across: Scale, title: str) -> str:
    first, last = round(across.low / math.log(2)), round((across.low + across.span) / math.log(2))
    marks = "".join(
        f'<text x="{across(2.0**k)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{2**k:,}</text>'
        for k in range(first, last + 1)
    )
    return f'{marks}\n<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{title}</text>'
