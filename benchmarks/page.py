"""docs/speed.md between its markers, and its plots: made from the results, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import svg
from benchmarks.table import markdown

DOCS = Path(__file__).parent.parent / "docs"
PAGE, IMAGES = DOCS / "speed.md", DOCS / "img"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def bring_up_to_date(results: Sequence[dict[str, Any]], more: dict[str, Any]) -> None:
    """Write the measured part of the page, and the plots."""
    IMAGES.mkdir(exist_ok=True)
    for curve in more["curves"]:
        (IMAGES / f"speed-{curve['name']}.svg").write_text(svg(curve), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), measured(results, more)), encoding="utf-8")


def between(page: str, text: str) -> str:
    """The page with what stands between the markers replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def measured(results: Sequence[dict[str, Any]], more: dict[str, Any]) -> str:
    """All that was measured, in Markdown."""
    first = results[0]
    with_versions = ", ".join(f"{name} {number}" for name, number in sorted(first["versions"].items()))
    rounds = sorted({r["rounds"] for r in results if "rounds" in r})
    parts = [
        f"Measured on: {first['machine']}; {with_versions}. Median of {rounds[0] if rounds else 0} rounds, fp32.",
        markdown(results),
        *_recorded(more["recorded"]),
        *(f"![seconds against {curve['axis']}](img/speed-{curve['name']}.svg)" for curve in more["curves"]),
    ]
    return "\n\n".join(part.strip() for part in parts)


def _recorded(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        f"On the lengths of {found['pairs']} real rows (prefix {found['prefix_mean']:.0f} tokens on average, "
        f"step {found['step_mean']:.0f}): {found['ratio']:.2f}x TRL at its best by wall clock, "
        f"{found['cpu_ratio']:.2f}x by CPU seconds, {found['flops_ratio']:.2f}x by operations."
    ]
