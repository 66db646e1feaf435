"""What a summary says of a decoder: its cost a problem, and what its samples say of fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import ceil, fsum, sqrt
from typing import Any

from stepdpo.core.types import CORRECT, Attempt
from stepdpo.evaluation.at_k import Estimate, best_at_k, majority_at_k, pass_at_k, weighted_at_k
from stepdpo.generation.decoded import Cost

NAMES = {"generated": "generated_tokens", "scored": "scored_tokens", "calls": "calls"}


def cost_numbers(costs: Sequence[Cost]) -> dict[str, dict[str, float]]:
    """Of each number of a `Cost` its mean over problems, and the smallest that 95 % of problems do not exceed."""
    found = {}
    for name, said in NAMES.items():
        values = sorted(asdict(cost)[name] for cost in costs)
        found[said] = {"mean": sum(values) / len(values), "p95": values[ceil(0.95 * len(values)) - 1]}
    return found


def numbers_at_k(attempts: Sequence[Attempt], log: bool) -> dict[str, Any]:
    """`samples`, how many responses a problem has; and `at_k`: pass@k, maj@k, of scored ones best-of-k and weighted@k.

    For k = 1, 2, 4, ... and all; each with its standard error over problems, and that of drawing where choices of k
    were drawn. By the strict grader. `log`: whether scores are logarithms. Nothing for one response a problem.
    """
    n = len(attempts[0].samples)
    if n < 2:
        return {}
    tables: dict[str, dict[str, Any]] = {}
    for k in sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n}):
        for name, estimates in _estimates(attempts, k, log).items():
            tables.setdefault(name, {})[str(k)] = _over_problems(_of_problems(attempts, estimates))
    return {"samples": n, "at_k": tables}


def _estimates(attempts: Sequence[Attempt], k: int, log: bool) -> dict[str, list[Estimate]]:
    found: dict[str, list[Estimate]] = {}
    for seed, attempt in enumerate(attempts):
        right = [one.strict.verdict == CORRECT for one in attempt.samples]
        groups = [one.group for one in attempt.samples]
        of_this = {
            "pass": Estimate(pass_at_k(len(right), sum(right), k)),
            "majority": majority_at_k(groups, right, k, seed),
        }
        scores = [one.score for one in attempt.samples if one.score is not None]
        if len(scores) == len(right):
            of_this["best"] = Estimate(best_at_k(right, scores, k))
            of_this["weighted"] = weighted_at_k(groups, right, scores, k, log, seed)
        for name, estimate in of_this.items():
            found.setdefault(name, []).append(estimate)
    return found


def _of_problems(attempts: Sequence[Attempt], estimates: Sequence[Estimate]) -> list[Estimate]:
    """Of each problem the mean over its attempts, where it has several: under other seeds."""
    by_problem: dict[str, list[Estimate]] = {}
    for attempt, estimate in zip(attempts, estimates, strict=True):
        by_problem.setdefault(attempt.problem_id, []).append(estimate)
    return [
        Estimate(fsum(one.value for one in some) / len(some), sqrt(fsum(one.stderr**2 for one in some)) / len(some))
        for some in by_problem.values()
    ]


def _over_problems(estimates: Sequence[Estimate]) -> dict[str, float]:
    n = len(estimates)
    mean = fsum(one.value for one in estimates) / n
    spread = sqrt(fsum((one.value - mean) ** 2 for one in estimates)) / n
    drawing = sqrt(fsum(one.stderr**2 for one in estimates)) / n
    return {"value": mean, "stderr": spread, **({"drawing_stderr": drawing} if drawing else {})}
