"""A row a round and task: pairs, time, accuracy, and whether it differs from the base and from the round before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepdpo.evaluation.statistics import summarise
from stepdpo.report.tables import Evaluation, pair_up, read_evaluations
from stepdpo.runtime.atomic_io import read_json

GRADER = "strict"
SECONDS = "seconds.json"
"""Beside the folders of a round: what its training took."""
COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "round": lambda row: str(row["round"]),
    "problems": lambda row: _number(row["problems"]),
    "pairs": lambda row: _number(row["pairs"]),
    "pairs, s": lambda row: _number(row["pairs_seconds"]),
    "training, s": lambda row: _number(row["train_seconds"]),
    "task": lambda row: row["task"],
    "accuracy, %": lambda row: _accuracy(row),
    "n": lambda row: _number(row["n"]),
    "p, base": lambda row: _p(row["p_base"]),
    "p, round before": lambda row: _p(row["p_before"]),
}
LEGEND = """\
Accuracy: strict grader, with its standard error. p: exact two-sided McNemar test on the same problems, not corrected
for the number of rows. Round 0 is the base.
"""
Found = dict[tuple[str, str], Evaluation]


def rounds_table(trained: Sequence[Path], base: Path | None) -> tuple[list[dict[str, Any]], str]:
    """(rows, text) of the rounds whose trainings are in `trained`; `base` holds the evaluations of round 0."""
    before = first = _evaluations(base) if base else {}
    rows = [_row(0, {}, key, it, {}, {}) for key, it in first.items() if _asked(key, trained)]
    for number, folder in enumerate(trained, start=1):
        found = _evaluations(folder)
        rows += [_row(number, _facts(folder), key, it, first, before) for key, it in found.items()]
        if not found:
            rows.append(_row(number, _facts(folder), ("", ""), None, {}, {}))
        before = found
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(row) for cell in COLUMNS.values()] for row in rows)]
    return rows, "\n".join(["| " + " | ".join(cells) + " |" for cells in lines]) + f"\n\n{LEGEND}"


def _asked(key: tuple[str, str], trained: Sequence[Path]) -> bool:
    """Whether a round was evaluated on that too: a base serves many runs."""
    return any(key in _evaluations(folder) for folder in trained)


def _evaluations(folder: Path) -> Found:
    return {it.key: it for it in read_evaluations(folder)} if any(folder.glob("eval/*/summary.json")) else {}


def _facts(trained: Path) -> dict[str, Any]:
    made = read_json(trained.parent / "pairs" / "summary.json")
    seconds = trained.parent / SECONDS
    return {
        "problems": made["counts"]["problems"],
        "pairs": made["counts"]["pairs"],
        "pairs_seconds": made["seconds"],
        "train_seconds": read_json(seconds)["train"] if seconds.is_file() else None,
    }


def _row(
    number: int, facts: Mapping[str, Any], key: tuple[str, str], it: Evaluation | None, base: Found, before: Found
) -> dict[str, Any]:
    numbers = summarise(it.attempts) if it else None
    block = numbers["graders"][GRADER] if numbers else {}
    return {
        "round": number,
        **{name: facts.get(name) for name in ("problems", "pairs", "pairs_seconds", "train_seconds")},
        "task": key[0],
        "n": numbers["n"] if numbers else None,
        **{name: block.get(name) for name in ("correct", "accuracy", "stderr")},
        "p_base": pair_up(base[key], it, GRADER).p_value if it and key in base else None,
        "p_before": pair_up(before[key], it, GRADER).p_value if it and key in before else None,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _accuracy(row: Mapping[str, Any]) -> str:
    return "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} ± {100 * row['stderr']:.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
