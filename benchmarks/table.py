"""Results as tables: every figure beside its target, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cases import TARGETS, TITLES, Target

Result = dict[str, Any]
SPEED = ("case", "against", "pairs", "ours s", "theirs s", "ratio", "CPU", "FLOPs", "loss differs", "target", "holds")
FLOOR = ("case", "our FLOPs / floor", "target", "holds")
EXACT = (
    "case",
    "against",
    "pairs",
    "our loss",
    "our gradient",
    "their loss",
    "their gradient",
    "ours, target",
    "holds",
)
EQUAL = 1e-5
"""Largest relative error in fp32 that passes for equal."""
MEMORY = ("case", "against", "pairs", "ours MB", "theirs MB", "share", "target", "holds")


def figure(result: Result, name: str) -> float | None:
    """A figure of a result; `memory` is our peak over theirs."""
    if name != "memory":
        value = result.get(name)
        return None if value is None else float(value)
    ours, theirs = result["ours_peak_mb"], result["theirs_peak_mb"]
    return ours / theirs if ours is not None and theirs else None


def markdown(results: Sequence[Result]) -> str:
    """All tables, in Markdown; they read as well in a terminal."""
    parts = [
        ("Seconds are medians; ratios are theirs over ours.", _grid(SPEED, [_speed(r) for r in _timed(results)])),
        (
            "Operations of our step over those that must be done:",
            _grid(FLOOR, [_floor(r) for r in results if r["against"] == "floor"]),
        ),
        (
            "Peak memory of a step above the built models:",
            _grid(MEMORY, [_memory(r) for r in results if figure(r, "memory") is not None]),
        ),
        (
            "Relative error of each side in fp32, against the padded batch in fp64:",
            _grid(EXACT, [_exact(r) for r in results if "ours_error" in r]),
        ),
    ]
    return "\n\n".join(f"{title}\n\n{grid}" for title, grid in parts) + "\n"


def verdicts(results: Sequence[Result]) -> list[tuple[Target, float | None]]:
    """Every target and what was measured; None where it was not."""
    found = {(r["case"], r["against"]): r for r in results}
    return [(t, figure(found[key], t.figure) if (key := (t.case, t.against)) in found else None) for t in TARGETS]


def _timed(results: Sequence[Result]) -> list[Result]:
    return [r for r in results if r["ratio"] is not None]


def _speed(r: Result) -> list[str]:
    return [
        r["case"],
        TITLES[r["against"]],
        str(r["pairs"]),
        f"{r['ours_s']:.2f}",
        f"{r['theirs_s']:.2f}",
        f"{r['ratio']:.2f}x",
        f"{r['cpu_ratio']:.2f}x",
        f"{r['flops_ratio']:.2f}x",
        f"{r['loss_diff']:.0e}",
        *_target(r, "ratio", "{:g}x"),
    ]


def _floor(r: Result) -> list[str]:
    return [r["case"], f"{r['floor_ratio']:.3f}x", *_target(r, "floor_ratio", "{:g}x")]


def _memory(r: Result) -> list[str]:
    share = figure(r, "memory")
    assert share is not None
    sizes = [f"{r[f'{side}_peak_mb']:.0f}" for side in ("ours", "theirs")]
    return [
        r["case"],
        TITLES[r["against"]],
        str(r["memory_pairs"]),
        *sizes,
        f"{share:.3f}",
        *_target(r, "memory", "{:.3g}"),
    ]


def _exact(r: Result) -> list[str]:
    ours, theirs = r["ours_error"], r["theirs_error"]
    figures = [f"{error:.0e}" for error in (*ours, *theirs)]
    holds = "yes" if max(ours) <= EQUAL else "**no**"
    return [r["case"], TITLES[r["against"]], str(r["exact_pairs"]), *figures, f"<= {EQUAL:.0e}", holds]


def _target(r: Result, name: str, form: str) -> list[str]:
    """The bound and whether it holds, both empty where there is none."""
    for target in TARGETS:
        if (target.case, target.against, target.figure) == (r["case"], r["against"], name):
            value = figure(r, name)
            assert value is not None
            sign = ">=" if target.at_least else "<="
            return [f"{sign} {form.format(target.bound)}", "yes" if target.met(value) else "**no**"]
    return ["", ""]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "(not measured in this run)"
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in lines)
