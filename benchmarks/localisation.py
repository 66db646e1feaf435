"""Do implicit rewards point at the first wrong step? Runs from one base, on the same wrong solutions of it.

python -m benchmarks.localisation RUN...       runs of `stepdpo train` from one base on tinymath or tinymath_long

Each run is inspected with `writer=reference`, so that all are asked about the same texts. A run is held
against the first one, solution by solution.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.evaluation.statistics import mcnemar
from stepdpo.runtime.atomic_io import read_json, read_jsonl
from stepdpo.runtime.run_folder import INSPECT, INSPECTED, SUMMARY

RULES = ("lowest_sum", "lowest_mean", "lowest_value", "steepest_fall_of_value")
BLIND = ("always_first", "always_last")


@dataclass(frozen=True)
class Looked:
    """What was found of one run."""

    name: str
    summary: Mapping[str, Any]
    hits: Mapping[str, bool]
    """Place of a wrong solution of several steps -> whether its lowest step is its first wrong one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--task", default="tinymath_long")
    parser.add_argument("--limit", type=int, default=600, help="problems")
    options = parser.parse_args()
    words = [f"task={options.task}", f"limit={options.limit}", "writer=reference", "show=0"]
    for run in options.runs:
        command = [sys.executable, "-m", "stepdpo", "inspect", str(run), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print("\n".join(table([read(run, options.task) for run in options.runs])))


def read(run: Path, task: str) -> Looked:
    """What `stepdpo inspect` wrote."""
    folder = run / INSPECT / task
    found = [(row["place"], row["response"]) for row in read_jsonl(folder / INSPECTED)]
    hits = {
        place: lowest(response["steps"]) == response["first_error"]
        for place, response in found
        if response["first_error"] is not None and len(response["steps"]) > 1
    }
    return Looked(run.name, read_json(folder / SUMMARY), hits)


def lowest(steps: Sequence[Mapping[str, Any]]) -> int:
    return min(range(len(steps)), key=lambda step: float(steps[step]["sum"]))


def table(runs: Sequence[Looked]) -> list[str]:
    """A row a run, a column a rule; ValueError where they were asked about other texts."""
    first = runs[0]
    rules = [rule for rule in RULES if any(rule in run.summary["localisation"]["rules"] for run in runs)]
    lines = [
        f"| run | {' | '.join(rule.replace('_', ' ') for rule in rules)} | against {first.name}: gained, lost, p |",
        "|---|" + "---|" * (len(rules) + 1),
    ]
    for run in runs:
        if run.hits.keys() != first.hits.keys():
            raise ValueError(f"{run.name} and {first.name} were asked about other solutions: have they one base?")
        rates = [run.summary["localisation"]["rules"].get(rule) for rule in rules]
        lines.append(f"| {run.name} | {' | '.join(map(_percent, rates))} | {_against(first, run)} |")
    known = first.summary["localisation"]
    blind = ", ".join(f"{name.replace('_', ' ')} {_percent(known['rules'][name])}" for name in BLIND)
    lines.append("")
    lines.append(
        f"{known['n']} wrong solutions, {known['steps']:.1f} steps; chance {100 * known['chance']:.1f}; {blind}."
    )
    return lines


def _against(first: Looked, run: Looked) -> str:
    if run is first:
        return ""
    gained = sum(hit and not first.hits[place] for place, hit in run.hits.items())
    lost = sum(first.hits[place] and not hit for place, hit in run.hits.items())
    return f"{gained}, {lost}, {mcnemar(gained, lost):.2g}"


def _percent(rate: Mapping[str, float] | None) -> str:
    if rate is None:
        return ""
    return f"{100 * rate['share']:.1f} ({100 * rate['ci_low']:.1f}-{100 * rate['ci_high']:.1f})"


if __name__ == "__main__":
    main()
