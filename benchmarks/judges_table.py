"""What roll-outs found, as numbers and as tables."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.types import Completion, Problem
from stepdpo.pairs.solutions import Solution

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Roll:
    """One roll-out."""

    completion: Completion
    right: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A wrong solution, where it first goes wrong in truth, and roll-outs from before each of its steps."""

    problem: Problem
    solution: Solution
    error: int | None
    rolls: list[list[Roll]]


@dataclass(frozen=True, slots=True)
class Found:
    """A verdict and its price."""

    error: int | None
    tokens: int
    rollouts: int


def summary(cases: Sequence[Case], found: Mapping[Key, list[list[Found]]]) -> dict[str, Any]:
    """Everything that is shown, as plain data."""
    return {
        "cases": len(cases),
        "distinct_problems": len({case.problem.id for case in cases}),
        "steps": dict(sorted(Counter(len(case.solution.steps) for case in cases).items())),
        "curve": [_row(cases, key, verdicts) for key, verdicts in found.items()],
        "confusion": {key[0]: _confusion(cases, some) for key, some in found.items() if key[1] == 8},
        "kept": {key[0]: _kept(cases, some, 8) for key, some in found.items() if key[1] == 8},
        "around": _around(cases),
    }


def _row(cases: Sequence[Case], key: Key, found: list[list[Found]]) -> dict[str, Any]:
    flat = [(case.error, one) for case, some in zip(cases, found, strict=True) for one in some]
    hits = [sum(one.error == case.error for one in some) / len(some) for case, some in zip(cases, found, strict=True)]
    rate = sum(hits) / len(hits)

    def share(outcomes: Sequence[bool]) -> float:
        return sum(outcomes) / len(outcomes)

    return {
        "search": key[0],
        "n": key[1],
        "hits": rate,
        "error": _clustered(cases, hits, rate),
        "early": share([e is not None and o.error is not None and o.error < e for e, o in flat]),
        "late": share([e is not None and o.error is not None and o.error > e for e, o in flat]),
        "none": share([o.error is None for _, o in flat]),
        "rollouts": sum(o.rollouts for _, o in flat) / len(flat),
        "tokens": sum(o.tokens for _, o in flat) / len(flat),
    }


def _clustered(cases: Sequence[Case], hits: Sequence[float], rate: float) -> float:
    """Standard error of the mean; solutions of one problem are not independent."""
    sums: dict[str, float] = defaultdict(float)
    for case, hit in zip(cases, hits, strict=True):
        sums[case.problem.id] += hit - rate
    return math.sqrt(sum(s * s for s in sums.values())) / len(cases)


def _confusion(cases: Sequence[Case], found: list[list[Found]]) -> list[list[int]]:
    """Rows: the true index; columns: the judge's, the last one for none. The first part of the record only."""
    size = max(len(case.solution.steps) for case in cases)
    table = [[0] * (size + 1) for _ in range(size)]
    for case, some in zip(cases, found, strict=True):
        if case.error is not None:
            table[case.error][size if some[0].error is None else some[0].error] += 1
    return table


def _kept(cases: Sequence[Case], found: list[list[Found]], n: int) -> list[dict[str, Any]]:
    """Verdicts left where so many of the record's last 20 roll-outs from before the found step must be right."""
    rates = []
    for case, (first, *_) in zip(cases, found, strict=True):
        if first.error is not None:
            more = case.rolls[first.error][-20:]
            rates.append((sum(roll.right for roll in more) / len(more), first.error == case.error))
    rows = []
    for least in (0.0, 0.05, 0.25, 0.5, 0.75):
        hits = [hit for rate, hit in rates if rate >= least]
        rows.append({"least": least, "kept": len(hits), "hits": sum(hits) / max(1, len(hits))})
    return rows


def _around(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Roll-outs by where they begin: so many steps after the label of the first wrong step."""
    some: dict[int, list[list[Roll]]] = defaultdict(list)
    for case in cases:
        for index, rolls in enumerate(case.rolls):
            if case.error is not None:
                some[index - case.error].append(rolls)
    return [
        {
            "after": distance,
            "prefixes": len(all_rolls),
            "right": sum(roll.right for rolls in all_rolls for roll in rolls) / sum(map(len, all_rolls)),
            "any": sum(any(roll.right for roll in rolls) for rolls in all_rolls) / len(all_rolls),
            "quarter": sum(sum(roll.right for roll in rolls) * 4 < len(rolls) for rolls in all_rolls) / len(all_rolls),
        }
        for distance, all_rolls in sorted(some.items())
    ]


def tables(results: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{results['cases']} wrong solutions of {results['distinct_problems']} problems, steps {results['steps']}",
        "",
    ]
    lines += [
        "| search | n | exact hit | too early | too late | none | roll-outs | tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results["curve"]:
        lines.append(
            f"| {r['search']} | {r['n']} | {r['hits']:.1%} +- {r['error']:.1%} | {r['early']:.1%} | {r['late']:.1%} "
            f"| {r['none']:.1%} | {r['rollouts']:.1f} | {r['tokens']:.0f} |"
        )
    for search, table in results["confusion"].items():
        size = len(table)
        head = " | ".join(f"step {k + 1}" for k in range(size))
        lines += ["", f"| {search}, n = 8: truth | {head} | none |", "|---" * (size + 2) + "|"]
        lines += [f"| step {k + 1} | " + " | ".join(map(str, row)) + " |" for k, row in enumerate(table)]
    for search, rows in results["kept"].items():
        lines += ["", f"| {search}: right among 20 more | verdicts kept | exact |", "|---|---|---|"]
        for r in rows:
            error = math.sqrt(r["hits"] * (1 - r["hits"]) / max(1, r["kept"]))
            lines.append(f"| {r['least']:.0%} | {r['kept']} | {r['hits']:.1%} +- {error:.1%} |")
    lines += [
        "",
        "| roll-outs begin before step | prefixes | right | any of 32 right | under a quarter right |",
        "|---|---|---|---|---|",
    ]
    for r in results["around"]:
        lines.append(f"| e{r['after']:+d} | {r['prefixes']} | {r['right']:.1%} | {r['any']:.1%} | {r['quarter']:.1%} |")
    return "\n".join(lines)
