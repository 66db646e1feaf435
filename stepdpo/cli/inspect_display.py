"""What `inspect` prints: pairs with their tokens coloured by reward, then the figures. Data are never markup.

Where there are no colours, in a file or with NO_COLOR, each side's lowest tokens are listed in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from stepdpo.core.errors import printable

WIDE = 100
"""Columns of a terminal from which on chosen and rejected stand side by side."""
FAINT = 0.08
"""Share of the largest reward below which a token has no colour."""
LISTED = 4
"""Lowest tokens of a side that are listed."""
RULES = {
    "lowest_sum": "step of the lowest reward",
    "lowest_mean": "step of the lowest reward a token",
    "first_sum_below_0": "first step of a reward below 0",
    "lowest_value": "step of the lowest value",
    "steepest_fall_of_value": "step at which the value falls most",
    "first_value_below_middle": "first step of a value below the middle",
    "always_first": "always the first step",
    "always_last": "always the last step",
}
CAVEAT = "Rewards are relative to the reference and hold differences of value: no probability that a step is right."
Row = Mapping[str, Any]
"""A line of inspect.jsonl."""


def inspection(out: Console, summary: Mapping[str, Any], rows: Sequence[Row], show: int) -> None:
    """Some rows, those of a known error first where they are single responses, and the figures of all."""
    beta = f"beta {summary['beta']:g} ({summary['beta_from']})"
    _line(out, f"{summary['policy']} against {summary['reference']}, template {summary['template']}, {beta}", "bold")
    known = sorted(rows, key=lambda row: "response" in row and row["response"]["first_error"] is None)
    for row in known[:show]:
        _row(out, row)
    _figures(out, summary)


def _row(out: Console, row: Row) -> None:
    margin = f"   margin {row['margin']:+.3f}" if "margin" in row else ""
    out.print()
    _line(out, f"{row['place']}{margin}", "bold")
    out.print(Text(printable(row["question"].strip()), style="dim"), soft_wrap=True)
    sides = {name: row[name] for name in ("chosen", "rejected", "response") if name in row}
    largest = max((abs(reward) for side in sides.values() for _, reward in _tokens(side)), default=0.0)
    if len(sides) > 1 and out.is_terminal and out.width >= WIDE:
        _beside(out, sides, largest)
    else:
        for name, side in sides.items():
            _below(out, name, side, largest)
    if not out.is_terminal or out.no_color:
        for name, side in sides.items():
            _line(out, f"  lowest tokens, {name}: {_lowest(side)}")


def _beside(out: Console, sides: Mapping[str, Any], largest: float) -> None:
    """A row a step, a column a side."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=True)
    table.add_column("step", justify="right")
    for name, side in sides.items():
        table.add_column(f"{name} {side['sum']:+.3f}", ratio=1)
    for number, steps in enumerate(zip_longest(*(side["steps"] for side in sides.values())), start=1):
        cells = [
            Text("") if step is None else Text(_told(step, side, number - 1) + "\n", "bold") + _coloured(step, largest)
            for step, side in zip(steps, sides.values(), strict=True)
        ]
        table.add_row(str(number), *cells)
    out.print(table)


def _below(out: Console, name: str, side: Mapping[str, Any], largest: float) -> None:
    """A paragraph a step."""
    _line(out, f"{name} {side['sum']:+.3f}", "bold")
    for number, step in enumerate(side["steps"], start=1):
        head = Text(f"  {number:>2}  {_told(step, side, number - 1)}   ", style="bold")
        out.print(head + _coloured(step, largest, "\n      "), soft_wrap=True)


def _told(step: Mapping[str, Any], side: Mapping[str, Any], index: int) -> str:
    """Sum and mean of a step, its value, and whether it is the first wrong one, the lowest, or known to be right."""
    told = f"{step['sum']:+.3f} (mean {step['mean']:+.4f})"
    if "value" in step:
        told += f" value {step['value']:+.2f}"
    lowest = min(range(len(side["steps"])), key=lambda i: side["steps"][i]["sum"])
    words = ["lowest"] if index == lowest and len(side["steps"]) > 1 else []
    if index == side["first_error"]:
        words.append("first wrong step")
    elif step["label"] is not None and step["label"] >= 0.5:
        words.append("right")
    return told + "".join(f" [{word}]" for word in words)


def _coloured(step: Mapping[str, Any], largest: float, newline: str = "\n") -> Text:
    """Every token on green, or on red where its reward is below 0, the stronger the farther."""
    text = Text()
    for token, reward in step["tokens"]:
        text.append(printable(token).replace("\n", newline), style=_style(reward, largest))
    # Line breaks around a step are scored with it and would tear the lines here.
    start = len(text.plain) - len(text.plain.lstrip())
    return text[start : len(text.plain.rstrip())] if text.plain.strip() else Text("")


def _style(reward: float, largest: float) -> Style | None:
    strength = abs(reward) / largest if largest else 0.0
    if strength < FAINT:
        return None
    faded = round(225 * (1 - strength))
    return Style(color="black", bgcolor=f"rgb(255,{faded},{faded})" if reward < 0 else f"rgb({faded},235,{faded})")


def _tokens(side: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((token, reward) for step in side["steps"] for token, reward in step["tokens"])


def _lowest(side: Mapping[str, Any]) -> str:
    found = sorted(_tokens(side), key=lambda pair: pair[1])[:LISTED]
    return ", ".join(f"{token!r} {reward:+.3f}" for token, reward in found)


def _figures(out: Console, summary: Mapping[str, Any]) -> None:
    out.print()
    left = "".join(f"; {count:,} left out: {reason}" for reason, count in summary["left_out"].items())
    kind = "answers to" if summary["kind"] == "task" else "rows of"
    _line(out, f"{summary['n']:,} {kind} {summary['of']}{left}", "bold")
    if margins := summary.get("margins"):
        share = _share(margins)
        _line(out, f"  the chosen side has the larger reward in {share}; the mean margin is {margins['mean']:+.4f}")
    found = summary["localisation"]
    if not found["n"]:
        _line(out, "  where the first wrong step lies is known of none of several steps")
        return
    _line(out, f"  the first wrong step, of {found['n']:,} wrong solutions of {found['steps']:.1f} steps on average:")
    table = Table("named by", "top-1", "95 %", "hits", box=None, padding=(0, 2, 0, 2))
    for name, rate in found["rules"].items():
        interval = f"{100 * rate['ci_low']:.1f}-{100 * rate['ci_high']:.1f}"
        table.add_row(RULES[name], f"{100 * rate['share']:.1f} %", interval, f"{rate['hits']}/{found['n']}")
    table.add_row("chance (1 / steps)", f"{100 * found['chance']:.1f} %", "", "")
    out.print(table)
    _line(out, f"  {CAVEAT}")


def _share(rate: Mapping[str, Any]) -> str:
    interval = f"{100 * rate['ci_low']:.1f}-{100 * rate['ci_high']:.1f}"
    return f"{100 * rate['share']:.1f} % of {rate['n']:,} (95 %: {interval})"


def _line(out: Console, text: str, style: str = "") -> None:
    # A Text, since rich would read brackets of a string as markup.
    out.print(Text(printable(text), style=style), soft_wrap=True)
