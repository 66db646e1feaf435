"""docs/demo.md: every seed of the demo, with intervals, paired tests, costs, kinds of mistakes and the grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

from stepdpo.evaluation.statistics import Paired
from stepdpo.report.tables import GRADER, EvaluationResult, compare_paired, read_evaluations

Seeds = Sequence[Mapping[str, EvaluationResult]]
"""The evaluation of every method, a mapping a seed."""


def read(folder: Path, names: Sequence[str]) -> dict[str, EvaluationResult]:
    """The one evaluation of every run in a seed's folder."""
    return {name: read_evaluations(folder / name)[0] for name in names}


def accuracies(seeds: Seeds, names: Sequence[str], about: Mapping[str, str]) -> str:
    """A row a method: every seed, the mean and the standard deviation over seeds."""
    n = len(next(iter(seeds[0].values())).attempts)
    head = ["trained on", *(f"seed {number}" for number in range(len(seeds))), "mean ± sd", "95 %"]
    rows = []
    for name in names:
        shares = [100 * float(seed[name].summary["accuracy"]) for seed in seeds]
        rows.append([about[name], *(f"{share:.1f}" for share in shares), *spread(shares, ".1f")])
    errors = [float(one.summary["graders"][GRADER]["stderr"]) for seed in seeds for one in seed.values()]
    low, high = 100 * min(errors), 100 * max(errors)
    note = (
        f"Percent of {n} problems; the standard error of each is {low:.1f} to {high:.1f} points. The last column is "
        "Student's interval for the mean over seeds: what other samples and another order would give on these problems."
    )
    return f"{table(head, rows)}\n\n{note}"


def comparisons(seeds: Seeds, names: Sequence[str], focus: str, about: Mapping[str, str]) -> str:
    """What `focus` is above each other method, a column a seed: points, gained/lost, exact McNemar p."""
    head = ["against", *(f"seed {number}" for number in range(len(seeds))), "mean ± sd of points", "95 %", "p < .05"]
    rows = []
    for name in names:
        if name == focus:
            continue
        pairs = [compare_paired(seed[name], seed[focus], GRADER) for seed in seeds]
        points = [100 * pair.delta for pair in pairs]
        rows.append([about[name], *map(_paired, pairs), *spread(points, "+.1f"), surely(pairs)])
    return table(head, rows)


def spread(values: Sequence[float], form: str) -> tuple[str, str]:
    """Mean with standard deviation, and Student's 95 % interval of the mean; neither where nothing varies."""
    middle = mean(values)
    deviation = stdev(values) if len(values) > 1 else 0.0
    if not deviation:
        return format(middle, form), ""
    reach = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return f"{middle:{form}} ± {deviation:.1f}", f"{middle - reach:{form}} to {middle + reach:{form}}"


def surely(pairs: Sequence[Paired]) -> str:
    """In how many seeds the difference is one, and in which direction."""
    sure = [pair.delta for pair in pairs if pair.p_value < 0.05]
    counts = {"above": sum(delta > 0 for delta in sure), "below": sum(delta < 0 for delta in sure)}
    found = " and ".join(f"{word} in {count}" for word, count in counts.items() if count)
    return f"{found or 'in none'} of {len(pairs)}"


def _paired(pair: Paired) -> str:
    return f"{100 * pair.delta:+.1f} ({pair.gained}/{pair.lost}, {pair.p_value:.1g})"


def mistakes(seeds: Seeds, names: Sequence[str], about: Mapping[str, str]) -> str:
    """Of the moves reached, the share that went wrong, by kind, over all seeds."""
    kinds = list(seeds[0][names[0]].summary.get("mistakes", {}))
    rows = []
    for name in names:
        cells = []
        for kind in kinds:
            found = [seed[name].summary["mistakes"][kind] for seed in seeds]
            made, reached = (sum(one[key] for one in found) for key in ("made", "reached"))
            cells.append(f"{100 * made / max(1, reached):.1f} % of {reached:,}")
        rows.append([about[name], *cells])
    return table(["trained on", *kinds], rows)


def costs(files: Sequence[Mapping[str, Any]], data: Mapping[str, str], about: Mapping[str, str]) -> str:
    """Rows and generated tokens of every method, the mean over seeds."""
    rows = []
    for name, file in data.items():
        found = [seed[file] for seed in files]
        count, tokens = (mean(one[key] for one in found) for key in ("rows", "generated_tokens"))
        rows.append([about[name], f"`{file}.jsonl`", f"{count:.0f}", f"{tokens:,.0f}"])
    return table(["trained on", "file", "rows", "generated tokens"], rows)


def grids(cells: Mapping[str, Sequence[Mapping[str, Any]]], about: Mapping[str, str]) -> str:
    """Every cell of every method; the best one in bold."""
    rows = []
    for name, found in cells.items():
        best = max(cell["accuracy"] for cell in found)
        shown = []
        for cell in found:
            text = f"{' '.join(cell['words'])}: {100 * cell['accuracy']:.1f}"
            shown.append(f"**{text}**" if cell["accuracy"] == best else text)
        rows.append([about[name], *shown])
    width = max(map(len, rows))
    return table(["trained on", *(f"cell {number}" for number in range(1, width))], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
