"""Curves as small SVG files, logarithmic on both axes; no plotting library is needed for three lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520, 320, 56, 130, 16, 44
COLOURS = {"ours": "#3949ab"}
OTHER = "#c62828"
NAMES = {"ours": "stepdpo", "trl_best": "TRL at its best", "classical": "classical", "pairs": "one by one"}


def svg(curve: dict[str, Any]) -> str:
    """One plot: seconds of every side against x."""
    points = curve["points"]
    xs = [point["x"] for point in points]
    everything = [value for point in points for value in point["s"].values()]
    across = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = Scale(_below(min(everything)), _above(max(everything)), HEIGHT - BOTTOM, TOP)
    parts = [_axes(across, up, xs, curve["axis"])]
    for side in points[0]["s"]:
        places = [(across(point["x"]), up(point["s"][side])) for point in points]
        parts.append(_line(places, COLOURS.get(side, OTHER), NAMES.get(side, side)))
    font = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


class Scale:
    """A logarithmic axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.span = math.log(low), math.log(high) - math.log(low) or 1.0  # 1 where all values are one
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (math.log(value) - self.low) / self.span, 1)


def _below(value: float) -> float:
    return float(2.0 ** math.floor(math.log2(value)))


def _above(value: float) -> float:
    return float(2.0 ** math.ceil(math.log2(value)))


def _axes(across: Scale, up: Scale, xs: Sequence[float], title: str) -> str:
    low, high = up.low / math.log(2), (up.low + up.span) / math.log(2)
    marks = [2.0**k for k in range(round(low), round(high) + 1)]
    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(m)}" y2="{up(m)}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{up(m) + 4}" text-anchor="end">{m:g} s</text>'
        for m in marks
    ]
    parts += [f'<text x="{across(x)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>' for x in xs]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{title}</text>')
    return "\n".join(parts)


def _line(places: Sequence[tuple[float, float]], colour: str, name: str) -> str:
    corners = " ".join(f"{x},{y}" for x, y in places)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places)
    x, y = places[-1]
    label = f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{name}</text>'
    return f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}{label}'
