"""Step pairs from a model's own solutions and an exact checker, after Step-DPO (Lai et al. 2024, arXiv 2406.18629).

Sample solutions; find the first wrong step of each one that ends wrong; pair it with a right step after the same
prefix, from another solution, or else sampled afresh from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from stepdpo.core.protocols import Checker
from stepdpo.core.types import Preference, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Requests, Result
from stepdpo.pairs.solutions import (
    SampledBatch,
    Solution,
    WrongStep,
    new_prefixes_first,
    next_steps,
    read_solutions,
)


@dataclass(frozen=True)
class Siblings:
    """First wrong step against a right one after exactly the same prefix, by the task's exact step checker."""

    resample: int = 8
    """Fresh continuations where no other sample goes on rightly from the prefix; 0 for none."""
    max_pairs_per_problem: int = 4
    """Different prefixes come first."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __post_init__(self) -> None:
        if self.resample < 0 or self.max_pairs_per_problem < 1:
            raise ValueError("resample must be at least 0, max_pairs_per_problem at least 1")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Sample, find the wrong steps, and sample again from the prefixes that no sample continues rightly."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        assert context.checker is not None, "a task without a checker is refused before"
        solutions = with_first_errors(problem, solutions, context.checker)
        count(solutions, len(completions), counts)
        wrong_steps = find_wrong_steps(solutions)[: self.max_pairs_per_problem]
        right = {wrong_step.prefix: wrong_step.continued_rightly(solutions) for wrong_step in wrong_steps}
        lone = [prefix for prefix, some in right.items() if not some]
        if lone and self.resample:
            fresh = yield Generate(tuple(prompt.text + prompt.joint + prefix for prefix in lone), self.resample)
            counts["resampled"] += sum(map(len, fresh))
            batches = [SampledBatch("r", prefix, "", some) for prefix, some in zip(lone, fresh, strict=True)]
            again = yield from read_solutions(batches, counts)
            resampled = {
                p: with_first_errors(problem, some, context.checker) for p, some in zip(lone, again, strict=True)
            }
            for wrong_step in wrong_steps:
                if some := resampled.get(wrong_step.prefix):
                    right[wrong_step.prefix] = wrong_step.continued_rightly(some)
        pairs = tuple(pair_up(problem, wrong_steps, right))
        return Result(pairs, "pairs" if pairs else _why_none(solutions, wrong_steps), counts)


def _why_none(solutions: Sequence[Solution], wrong_steps: Sequence[WrongStep]) -> str:
    if not solutions:
        return "no usable sample"
    if all(s.correct for s in solutions):
        return "no wrong sample"
    return "no right step found" if wrong_steps else "no wrong step found"


def with_first_errors(problem: Problem, solutions: Sequence[Solution], checker: Checker) -> list[Solution]:
    """The solutions with their first wrong steps, in the eyes of an exact checker."""
    return [replace(s, error=checker.first_error(problem, s.steps)) for s in solutions]


def count(solutions: Sequence[Solution], samples: int, counts: Counter[str]) -> None:
    """What came of the first sampling."""
    counts["samples"] += samples
    counts["right to the end"] += sum(s.right_to_the_end for s in solutions)
    counts["right answer over a wrong step"] += sum(s.correct and s.error is not None for s in solutions)
    counts["wrong"] += sum(not s.correct for s in solutions)
    counts["wrong step found"] += sum(s.wrong_at is not None for s in solutions)


def find_wrong_steps(solutions: Sequence[Solution]) -> list[WrongStep]:
    """The distinct wrong steps of one problem: new prefixes first, and of these the ones with a right sibling."""
    wrong_steps: dict[tuple[str, str], WrongStep] = {}
    for solution in solutions:
        if solution.wrong_at is not None:
            wrong_step = WrongStep(solution, solution.wrong_at)
            wrong_steps.setdefault((wrong_step.prefix, wrong_step.step), wrong_step)
    # First those with a right sibling among the samples: where pairs are few, these cost nothing more.
    return new_prefixes_first(wrong_steps.values(), lambda wrong_step: not wrong_step.continued_rightly(solutions))


def pair_up(
    problem: Problem, wrong_steps: Sequence[WrongStep], right: Mapping[str, Sequence[Solution]]
) -> Iterator[Preference]:
    """A preference for each wrong step whose prefix was continued rightly; those after one prefix take turns."""
    turns: Counter[str] = Counter()
    for wrong_step in wrong_steps:
        some = right[wrong_step.prefix]
        if not some:
            continue
        # Of right steps, those that lead to the right answer: a right step before a wrong one may be a dead end.
        best = [s for s in some if s.right_to_the_end] or some
        chosen = best[turns[wrong_step.prefix] % len(best)]
        turns[wrong_step.prefix] += 1
        meta = {"chosen_right_to_the_end": chosen.right_to_the_end}
        yield next_steps(problem, wrong_step.index, chosen, wrong_step.wrong, **meta)
