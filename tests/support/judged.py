"""Pairs that need a judge: the first wrong step in its eyes against the gold step. Enough to drive any judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.steps import cut_step, split_steps
from stepdpo.core.types import Preference, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Requests, Result
from stepdpo.pairs.solutions import SampledBatch, Solution, read_solutions


@dataclass(frozen=True)
class Judged:
    """One pair a wrong solution whose steps before the wrong one are the gold solution's."""

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __call__(self, problem: Problem, context: Context) -> Requests:
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        found = []
        for solution in solutions:
            if not solution.correct:
                verdict = yield from context.judge(problem, solution, context)
                counts["judged"] += 1
                if verdict.error is not None:
                    found.append(pair(problem, solution, verdict.error))
        return Result(tuple(found), "pairs" if found else "no wrong step found", counts)


def pair(problem: Problem, solution: Solution, index: int) -> Preference:
    _, steps = split_steps(problem.solution)
    prefix = solution.prefix(index)
    rejected, rest = cut_step(solution.text[len(prefix) :])
    chosen = steps[index].partition(":")[2] if index < len(steps) else " Nothing."
    return Preference(problem.question, prefix, chosen.rstrip("\n"), rejected, "", rest, meta={"step": index})
