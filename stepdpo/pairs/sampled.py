"""Right against wrong whole solutions of one model, by their final answers: instance-level pairs.

The usual way of DPO on a model's own samples (Rafailov et al. 2023, arXiv 2305.18290, section 4, with the answer's
correctness as the preference).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.ranges import at_least, within
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Requests, Result
from stepdpo.pairs.solutions import SampledBatch, instance_pairs, read_solutions


@dataclass(frozen=True)
class Sampled:
    """Each pair takes a right and a wrong solution that no other pair of the problem has."""

    max_pairs_per_problem: int = 1
    min_solve_rate: float = 0.0
    """Problems of which a smaller share of samples is right are left out."""
    max_solve_rate: float = 1.0

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, max_pairs_per_problem=self.max_pairs_per_problem)
        within(0, 1, min_solve_rate=self.min_solve_rate, max_solve_rate=self.max_solve_rate)
        if self.min_solve_rate > self.max_solve_rate:
            raise ValueError("min_solve_rate must not be above max_solve_rate")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Sample, grade, pair up in the order of the samples."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        right = sum(s.correct for s in solutions)
        counts.update({"samples": len(completions), "right": right})
        rate = right / max(1, len(completions))
        if not self.min_solve_rate <= rate <= self.max_solve_rate:
            return Result(outcome="solve rate outside the window", counts=counts)
        pairs = instance_pairs(problem, solutions, self.max_pairs_per_problem, solve_rate=round(rate, 4))
        why = "no usable sample" if not solutions else "no right sample" if not right else "no wrong sample"
        return Result(pairs, "pairs" if pairs else why, counts)
