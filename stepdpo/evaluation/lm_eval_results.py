"""What lm-evaluation-harness writes of an evaluation, as rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KIND = "lm_eval"
"""What the summary.json of such an evaluation says of itself."""
MAIN = ("exact_match", "acc", "acc_norm")
"""Of a task's metrics the one that is its accuracy, where it has any of these."""


def read_results(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a task, metric and filter, of what the harness writes: `value`, and `stderr` where it tells one.

    Raises LookupError, TypeError or AttributeError for what is none of its files.
    """
    rows = []
    for task, metrics in found["results"].items():
        asked = found.get("n-samples", {}).get(task, {})
        for key, value in metrics.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{filtered}")
            rows.append({
                "task": task, "metric": metric, "filter": filtered, "value": value,
                "stderr": error if isinstance(error, int | float) else None,  # "N/A" where it does not know one
                "n": asked.get("effective"), "shots": found.get("n-shot", {}).get(task),
            })  # fmt: skip
    return rows


def accuracy(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """That of the first task that tells one; None where none does."""
    return next((float(row["value"]) for name in MAIN for row in rows if row["metric"] == name), None)
