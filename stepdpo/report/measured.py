"""Evaluations that are no graded answers: who names the first wrong step, what lm-evaluation-harness tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from stepdpo.core.errors import UserError
from stepdpo.evaluation import first_error, lm_eval_results
from stepdpo.report.render import clean, escape, markdown_table, show, table
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.run_folder import SUMMARY

KIND = "kind"
"""What tells the summary of such an evaluation from that of graded answers, which has none."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """How the evaluations of one kind are shown: a table a task, a row an evaluation."""

    title: str
    rows: Callable[[Row], list[dict[str, str]]]
    """The cells of a summary, by the heads of their columns; a task's rows have the same."""
    legend: str


def _first_errors(summary: Row) -> list[dict[str, str]]:
    shares = {name: _percent(summary[key]) for name, key in (("F1", "f1"), ("named", "named"), ("passed", "passed"))}
    subsets = {f"F1 {name}": _percent(one["f1"]) for name, one in summary["subsets"].items() if name}
    threshold = summary["threshold"]
    return [{
        "scorer": scorer_name(summary["scorer"]), "n": str(summary["n"]), **shares,
        "AUC": "" if summary["auc"] is None else f"{summary['auc']:.3f}",
        **(subsets if len(subsets) > 1 else {}),
        "threshold": f"{threshold['value']:.4g} ({threshold['from']})",
    }]  # fmt: skip


def _harness(summary: Row) -> list[dict[str, str]]:
    return [
        {
            "task": str(row["task"]), "metric": str(row["metric"]), "filter": str(row["filter"]),
            "n": _known(row["n"]), "shots": _known(row["shots"]),
            "value": f"{row['value']:.4f}" + ("" if row["stderr"] is None else f" ± {row['stderr']:.4f}"),
        }
        for row in summary["results"]
    ]  # fmt: skip


def _known(value: object) -> str:
    return "" if value is None else str(value)


KINDS: Mapping[str, Kind] = {
    lm_eval_results.KIND: Kind(
        "lm-evaluation-harness",
        _harness,
        "As the harness tells them: value ± its standard error, by its own prompts, filters and metrics.",
    ),
    first_error.KIND: Kind(
        "the first wrong step",
        _first_errors,
        "In percent. named: wrong solutions whose first wrong step is named; passed: right solutions of which no step "
        "is; F1: the harmonic mean of the two, over subsets the plain mean. Where the threshold was chosen on held-out "
        "problems, these are in no figure.",
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """All runs on one task."""

    title: str
    cells: Mapping[str, Sequence[str]]
    legend: str

    def markdown(self) -> str:
        """For report.md."""
        return f"\n## {escape(self.title)}\n\n{markdown_table(self.cells)}\n\n{self.legend}\n"

    def print(self) -> None:
        """The same on the terminal."""
        show(Text(f"{clean(self.title)}. {self.legend}"))
        show(table(self.cells))


def is_measured(summary: object) -> bool:
    """Whether a summary is that of such an evaluation."""
    return isinstance(summary, dict) and summary.get(KIND) in KINDS


def measured(runs: Mapping[Path, str]) -> list[Measured]:
    """A section a kind and task, of the evaluations of all runs; UserError for one whose figures cannot be read."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for run, name in runs.items():
        for path in sorted((run / "eval").rglob(SUMMARY)):
            summary = read_json(path)
            if not is_measured(summary):
                continue
            try:
                found = [{"run": name, **row} for row in KINDS[summary[KIND]].rows(summary)]
                rows.setdefault((summary[KIND], str(summary["task"])), []).extend(found)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise UserError(f"{path}: not what `stepdpo eval` writes ({error!r})") from error
    return [
        Measured(f"{task}: {KINDS[kind].title}", _columns(some), KINDS[kind].legend)
        for (kind, task), some in rows.items()
    ]


def _columns(rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Of rows that need not have the same columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, "") for row in rows] for name in names}


def scorer_name(scorer: Row) -> str:
    """A scorer as people read it: with its judge, where it asks one."""
    judge = scorer.get("judge")
    return f"{scorer.get('name')} ({judge.get('name')})" if isinstance(judge, dict) else str(scorer.get("name"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
