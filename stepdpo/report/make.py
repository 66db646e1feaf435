"""The verb: run folders in, `report.md`, `report.json` and a table on the terminal out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepdpo.errors import UserError, nearest
from stepdpo.files import write_text
from stepdpo.report.render import RENDERERS, compared, show, terminal
from stepdpo.report.tables import find_base, pair_up, read_evaluations, run_rows
from stepdpo.stats import GRADERS


def report(runs: Sequence[Path], base: Path | None, out: Path) -> list[dict[str, Any]]:
    """Report on `runs` against `base` (any folder with eval/; None: the one a run names, else `base` beside it)."""
    if not runs:
        raise UserError("no runs to report on: name at least one run folder")
    rows: list[dict[str, Any]] = []
    for run in runs:
        evaluations = read_evaluations(run)
        against = base or find_base(run, evaluations)
        rows += run_rows(run, evaluations, read_evaluations(against) if against else [])
    out.mkdir(parents=True, exist_ok=True)
    for name, render in RENDERERS.items():
        write_text(out / name, render(rows))
    show(terminal(rows))
    return rows


def compare(a: Path, b: Path) -> list[dict[str, Any]]:
    """Compare two runs on what both were evaluated on; delta is `b` minus `a` (control first)."""
    first, second = ({it.key: it for it in read_evaluations(run)} for run in (a, b))
    shared = [key for key in first if key in second]
    if not shared:
        here, there = " ".join(next(iter(first))), [" ".join(key) for key in second]
        raise UserError(f"{a.name} and {b.name} share no task and decoder: {here!r}; in {b.name}: {nearest('', there)}")
    rows: list[dict[str, Any]] = []
    for key in shared:
        for grader in GRADERS:
            pair = pair_up(first[key], second[key], grader)
            rows.append({
                "a": a.name, "b": b.name, "task": key[0], "decode": key[1], "grader": grader, "n": pair.n,
                "accuracy_a": pair.base_correct / pair.n, "accuracy_b": pair.correct / pair.n,
                "gained": pair.gained, "lost": pair.lost,
                "delta": pair.delta, "stderr": pair.stderr, "p_value": pair.p_value,
            })  # fmt: skip
    show(compared(rows))
    return rows
