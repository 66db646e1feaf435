"""docs/losses.md: every loss on every seed, held against the base and supervised controls, with its grid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import demo
from benchmarks.demo_page import spread, surely, table
from stepdpo.evaluation.statistics import Paired
from stepdpo.report.tables import GRADER, EvaluationResult, compare_paired, read_evaluations

TEXT = Path(__file__).with_name("losses_page.md")


def page(folders: Sequence[Path], found: Mapping[str, Any], about: Mapping[str, str], controls: Sequence[str]) -> str:
    names = [demo.BASE, *about]
    seeds = [{name: read_evaluations(folder_of(folder, name))[0] for name in names} for folder in folders]
    order = sorted(about, key=lambda name: -mean(float(seed[name].summary["accuracy"]) for seed in seeds))
    parts = {
        "accuracies": _accuracies(seeds, [*order, demo.BASE], found["grid"], {**about, demo.BASE: ""}),
        "comparisons": _comparisons(seeds, order, [demo.BASE, *controls]),
        "grids": _grids(found["grid"], about),
        "problems": str(len(seeds[0][demo.BASE].attempts)),
        "heldout": str(found["heldout"]),
        "count": str(len(seeds)),
        "machine": found["machine"],
    }
    return TEXT.read_text().format(**parts)


def folder_of(folder: Path, name: str) -> Path:
    """Where the runs of a loss are."""
    return folder / re.sub(r"[^\w]+", "-", name)


def _accuracies(
    seeds: Sequence[Mapping[str, EvaluationResult]],
    names: Sequence[str],
    grid: Mapping[str, Any],
    about: Mapping[str, str],
) -> str:
    """A row a loss: its setting, every seed, the mean and the deviation over seeds."""
    rows = []
    for name in names:
        shares = [100 * float(seed[name].summary["accuracy"]) for seed in seeds]
        words = grid[name]["cells"][grid[name]["chosen"]]["words"] if name in grid else []
        setting = " ".join(f"`{word}`" for word in words)
        rows.append(
            [f"`{name}`", about[name], setting, *(f"{share:.1f}" for share in shares), spread(shares, ".1f")[0]]
        )
    head = ["loss", "on", "setting", *(f"seed {number}" for number in range(len(seeds))), "mean ± sd"]
    errors = [100 * float(one.summary["graders"][GRADER]["stderr"]) for seed in seeds for one in seed.values()]
    return f"{table(head, rows)}\n\nThe standard error of one number is {min(errors):.1f} to {max(errors):.1f} points."


def _comparisons(
    seeds: Sequence[Mapping[str, EvaluationResult]], names: Sequence[str], others: Sequence[str]
) -> str:  # fmt: skip
    """What a loss is above the base and each control: points, exact McNemar p of every seed, how often surely."""
    rows = []
    for name in names:
        cells = []
        for other in others:
            pairs = [compare_paired(seed[other], seed[name], GRADER) for seed in seeds]
            cells.append("" if other == name else _against(pairs))
        rows.append([f"`{name}`", *cells])
    return table(["loss", *(f"against `{other}`" for other in others)], rows)


def _against(pairs: Sequence[Paired]) -> str:
    points = mean(100 * pair.delta for pair in pairs)
    return f"{points:+.1f} ({'; '.join(f'{pair.p_value:.1g}' for pair in pairs)}) {surely(pairs)}"


def _grids(grid: Mapping[str, Any], about: Mapping[str, str]) -> str:
    rows = []
    for name in about:
        shown = []
        for number, cell in enumerate(grid[name]["cells"]):
            text = f"{' '.join(cell['words'])}: {100 * cell['accuracy']:.1f}"
            shown.append(f"**{text}**" if number == grid[name]["chosen"] else text)
        rows.append([f"`{name}`", *shown])
    return table(["loss", *(f"setting {number}" for number in range(1, 5))], rows)
