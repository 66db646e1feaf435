"""A row a round and task: pairs, time, accuracy, and whether it differs from the base and from the round before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepdpo.evaluation.statistics import summarise
from stepdpo.report.tables import GRADER, EvaluationResult, compare_paired, read_evaluations
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.run_folder import SECONDS, SUMMARY

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
ByKey = dict[tuple[str, str], EvaluationResult]
"""Evaluations of one model by task and decoder."""


def iterations_table(trained: Sequence[Path], base: Path | None) -> tuple[list[dict[str, Any]], str]:
    """(rows, text) of the rounds whose trainings are in `trained`; `base` holds the evaluations of round 0."""
    before = first = _evaluations(base) if base else {}
    rows = [_row(0, {}, key, evaluation, {}, {}) for key, evaluation in first.items() if _is_shared(key, trained)]
    for number, folder in enumerate(trained, start=1):
        current, counts = _evaluations(folder), _counts(folder)
        rows += [_row(number, counts, key, evaluation, first, before) for key, evaluation in current.items()]
        if not current:
            rows.append(_row(number, counts, ("", ""), None, {}, {}))
        before = current
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(row) for cell in COLUMNS.values()] for row in rows)]
    return rows, "\n".join(["| " + " | ".join(cells) + " |" for cells in lines]) + f"\n\n{LEGEND}"


def _is_shared(key: tuple[str, str], trained: Sequence[Path]) -> bool:
    """Whether a round was evaluated on that too: a base serves many runs."""
    return any(key in _evaluations(folder) for folder in trained)


def _evaluations(folder: Path) -> ByKey:
    if not any(folder.glob(f"eval/*/{SUMMARY}")):
        return {}
    return {evaluation.key: evaluation for evaluation in read_evaluations(folder)}


def _counts(trained: Path) -> dict[str, Any]:
    """What a round's pairs and its training came to."""
    pairs = read_json(trained.parent / "pairs" / SUMMARY)
    seconds = trained.parent / SECONDS
    return {
        "problems": pairs["counts"]["problems"],
        "pairs": pairs["counts"]["pairs"],
        "pairs_seconds": pairs["seconds"],
        "train_seconds": read_json(seconds)["train"] if seconds.is_file() else None,
    }


def _row(
    number: int,
    counts: Mapping[str, Any],
    key: tuple[str, str],
    evaluation: EvaluationResult | None,
    base: ByKey,
    before: ByKey,
) -> dict[str, Any]:
    # Accuracies are counted again from the attempts, so that every row is by one version of the statistics.
    numbers = summarise(evaluation.attempts) if evaluation else None
    block = numbers["graders"][GRADER] if numbers else {}
    return {
        "round": number,
        **{name: counts.get(name) for name in ("problems", "pairs", "pairs_seconds", "train_seconds")},
        "task": key[0],
        "n": numbers["n"] if numbers else None,
        **{name: block.get(name) for name in ("correct", "accuracy", "stderr")},
        "p_base": compare_paired(base[key], evaluation, GRADER).p_value if evaluation and key in base else None,
        "p_before": compare_paired(before[key], evaluation, GRADER).p_value if evaluation and key in before else None,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _accuracy(row: Mapping[str, Any]) -> str:
    return "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} ± {100 * row['stderr']:.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
