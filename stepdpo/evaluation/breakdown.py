"""An accuracy by what problems are like: level, subject, the number of steps of their gold working. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepdpo.core.types import Attempt, Problem
from stepdpo.evaluation.statistics import summarise

MOST = 24
"""Kinds of a table; what comes in more of them is no kind of problem."""


def breakdown(problems: Sequence[Problem], attempts: Sequence[Attempt]) -> dict[str, dict[str, dict[str, float]]]:
    """For `level`, `subject` and `steps`, where the problems differ in them: kind -> n, accuracy, 95 % interval.

    By the strict grader, kinds in their order. A problem that says nothing of one is not in its table.
    """
    attempted: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        attempted.setdefault(attempt.problem_id, []).append(attempt)
    tables: dict[str, dict[str, list[Attempt]]] = {}
    for problem in problems:
        for name, kind in _kinds(problem).items():
            tables.setdefault(name, {}).setdefault(kind, []).extend(attempted.get(problem.id, ()))
    found = {}
    for name in sorted(tables):
        kinds = {kind: some for kind, some in tables[name].items() if some}
        if 1 < len(kinds) <= MOST:
            found[name] = {kind: _figures(kinds[kind]) for kind in sorted(kinds, key=_order)}
    return found


def in_words(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """A line a table."""
    return [
        f"by {name}: " + ", ".join(f"{kind} {100 * one['accuracy']:.1f} % of {one['n']}" for kind, one in kinds.items())
        for name, kinds in tables.items()
    ]


def _kinds(problem: Problem) -> dict[str, str]:
    meta = problem.meta
    found = {
        "level": str(meta.get("level", "")).removeprefix("Level").strip(),
        "subject": str(meta.get("subject") or meta.get("type") or "").strip(),
        "steps": str(_steps(problem) or ""),
    }
    return {name: kind for name, kind in found.items() if kind}


def _steps(problem: Problem) -> int:
    """As the problem says; of GSM8K's solutions the lines before the answer. 0 where nobody knows."""
    said = problem.meta.get("steps")
    if isinstance(said, int):
        return said
    working, mark, _ = problem.solution.rpartition("####")
    return sum(bool(line.strip()) for line in working.splitlines()) if mark else 0


def _figures(attempts: Sequence[Attempt]) -> dict[str, Any]:
    numbers = summarise(attempts)
    block = numbers["graders"]["strict"]
    return {"n": numbers["n"], **{key: block[key] for key in ("accuracy", "ci_low", "ci_high")}}


def _order(kind: str) -> tuple[int, str]:
    """Numbers by their size, before words by their letters."""
    return (int(kind), "") if re.fullmatch(r"\d{1,9}", kind) else (10**9, kind)
