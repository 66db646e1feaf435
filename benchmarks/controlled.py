"""What came of `pairs=controlled` on the miniature: tries a pair, and where the exact checker finds the mistakes.

python -m benchmarks.controlled runs/A runs/B ...
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.oracle import CHECK, highest
from stepdpo.core.steps import split_steps
from stepdpo.core.types import Preference, Problem
from stepdpo.data.preference_file import from_row
from stepdpo.tinymath.problems import Stories, problems

TRIES = ("1", "2", "3", "4", "5 to 8", "more")
PLACES = ("shared", "k + 1", "k + 2", "k + 3", "later", "none")
"""Of the first wrong step of a rejected side."""


def tries(number: int) -> str:
    """The column of a pair that took so many."""
    return str(number) if number <= 4 else "5 to 8" if number <= 8 else "more"


def place(error: int | None, k: int) -> str:
    """The column of a first wrong step, where steps up to `k` are shared."""
    if error is None:
        return "none"
    if error <= k:
        return "shared"
    return f"k + {error - k}" if error <= k + 3 else "later"


def sides(preference: Preference, problem: Problem) -> dict[str, Any]:
    """What is counted of one pair: `at cut`, the first step that differs is the first wrong one."""
    texts = (preference.chosen + preference.chosen_rest, preference.rejected + preference.rejected_rest)
    right, wrong = (CHECK(problem, split_steps(preference.prefix + text)[1]) for text in texts)
    return {
        "tries": tries(preference.meta["tries"]),
        "place": place(wrong, preference.meta["k"]),
        "at cut": wrong == preference.meta["step"],
        "cut later": preference.meta["step"] > preference.meta["k"] + 1,
        "chosen right": right is None,
    }


def shares(found: Counter[str], names: Sequence[str]) -> list[str]:
    total = max(1, sum(found.values()))
    return [f"{found[name] / total:.0%}" for name in names]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def of(folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """The pairs of a run, looked at, and its summary."""
    rows = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "k" in row["meta"]]
    kind = Stories.long if "-long-" in rows[0]["meta"]["problem"] else Stories.short
    known = {problem.id: problem for problem in problems("preference", highest(rows) + 1, kind=kind)}
    made = [sides(pair, known[pair.meta["problem"]]) for pair in map(from_row, rows)]
    return made, json.loads((folder / "summary.json").read_text())


def main(folders: Sequence[str]) -> None:
    first, second, third = [], [], []
    for name in folders:
        made, summary = of(Path(name))
        counts = summary["counts"]
        run, continued = Path(name).name, counts["right solutions continued"]
        tried = counts["tries that end wrong"] + counts.get("tries that end right", 0)
        others = sum(n for word, n in counts.items() if word.startswith("tries ")) - tried
        rate = f"{counts['right'] / counts['samples']:.0%}"
        figures = (tried + others, counts.get("tries that end right", 0), others, counts["tokens"])
        before = [f"{counts['problems']:,}", rate, f"{continued:,}", f"{len(made):,}"]
        first.append([run, *before, *(f"{figure:,}" for figure in figures), f"{summary['seconds']:.0f}"])
        second.append([run, *shares(Counter(one["tries"] for one in made), TRIES)])
        flags = [f"{sum(one[key] for one in made) / len(made):.0%}" for key in ("at cut", "cut later", "chosen right")]
        third.append([run, *shares(Counter(one["place"] for one in made), PLACES), *flags])
    titles = ["run", "problems", "samples right", "continued", "pairs", "tries", "end right", "not used", "tokens", "s"]
    print(table(titles, first), table(["run", *TRIES], second), sep="\n\n", end="\n\n")
    print(table(["run", *PLACES, "where the sides part", "part after k + 1", "chosen right throughout"], third))


if __name__ == "__main__":
    main(sys.argv[1:])
