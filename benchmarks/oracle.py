"""How many pairs of a run are right: what tinymath's exact checker says of both sides.

python -m benchmarks.oracle runs/A runs/B ...

A rejected side is right when the step after the prefix (without one, the last step of what is rejected) is the first
wrong one of its solution; a chosen side when no step up to the end of what is chosen is wrong. The folders are those
of `stepdpo pairs task=tinymath`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Preference, Problem
from stepdpo.data.preference_file import from_row
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

TITLES = (
    "run",
    "pairs",
    "problems with pairs",
    "first wrong step rejected",
    "chosen right",
    "both",
    "tokens",
    "seconds",
)
CHECK = TinymathChecker().first_error


def verdict(preference: Preference, problem: Problem) -> tuple[bool, bool]:
    """Whether the right step is rejected, and whether what is chosen is right."""
    bad = split_steps(preference.prefix + preference.rejected + preference.rejected_rest)[1]
    blamed = split_steps(preference.prefix or preference.rejected)[1]  # an unfinished side ends with the step to blame
    good = split_steps(preference.prefix + preference.chosen)[1]
    error = CHECK(problem, split_steps(preference.prefix + preference.chosen + preference.chosen_rest)[1])
    return CHECK(problem, bad) == len(blamed) - 1, error is None or error >= len(good)


def row(folder: Path) -> list[str]:
    """What the table says of one run."""
    rows = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    known = {problem.id: problem for problem in problems("preference", highest(rows) + 1)}
    found: Counter[str] = Counter()
    for preference in map(from_row, rows):
        rejected, chosen = verdict(preference, known[preference.meta["problem"]])
        found.update({"rejected": rejected, "chosen": chosen, "both": rejected and chosen})
    shares = [f"{found[name] / len(rows):.1%}" for name in ("rejected", "chosen", "both")]
    fruitful, of = summary["outcomes"].get("pairs", 0), summary["counts"]["problems"]
    figures = [f"{summary['counts'].get('tokens', 0):,}", f"{summary['seconds']:.0f}"]
    return [folder.name, f"{len(rows):,}", f"{fruitful} of {of}", *shares, *figures]


def highest(rows: Sequence[dict[str, Any]]) -> int:
    """The number of the last problem: ids end with it."""
    return max(int(row["meta"]["problem"].rpartition("-")[2]) for row in rows)


def main(folders: Sequence[str]) -> None:
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for folder in folders:
        print(f"| {' | '.join(row(Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
