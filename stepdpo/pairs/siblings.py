"""Step pairs from a model's own solutions and an exact checker, after Step-DPO (Lai et al. 2024, arXiv 2406.18629).

Sample solutions; find the first wrong step of each one that ends wrong; pair it with a right step after the same
prefix, from another solution, or else sampled afresh from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Completion, Preference, Problem, Prompt
from stepdpo.pairs.baselines import EXTRA, baselines
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Request, Requests, Result
from stepdpo.pairs.solutions import (
    Faults,
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
    faults: Faults = Faults.wrong
    """wrong: the first wrong steps of solutions that end wrong; any: of all solutions."""
    baselines: bool = False
    """Whether to write what other methods would be trained on, from the same samples."""
    extra_samples: int = 0
    """Further solutions for `more_right_solutions`, so that sampling alone is given as many tokens as the search."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __post_init__(self) -> None:
        at_least(0, resample=self.resample, extra_samples=self.extra_samples)
        at_least(1, max_pairs_per_problem=self.max_pairs_per_problem)
        if self.extra_samples and not self.baselines:
            raise ValueError("extra_samples needs baselines=true")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Sample, find the wrong steps, and sample again from the prefixes that no sample continues rightly."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        drawn = {"samples": completions}
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        assert context.checker is not None, "a task without a checker is refused before"
        solutions = with_first_errors(problem, solutions, context.checker)
        count(solutions, len(completions), counts)
        faulty = self.faults.among(solutions)
        counts["wrong step found"] += sum(s.error is not None for s in faulty)
        wrong_steps = find_wrong_steps(faulty, solutions)[: self.max_pairs_per_problem]
        right = {wrong_step.prefix: wrong_step.continued_rightly(solutions) for wrong_step in wrong_steps}
        lone = [prefix for prefix, some in right.items() if not some]
        if lone and self.resample:
            fresh = yield Generate(tuple(prompt.text + prompt.joint + prefix for prefix in lone), self.resample)
            counts["resampled"] += sum(map(len, fresh))
            drawn["search"] = [completion for some in fresh for completion in some]
            batches = [SampledBatch("r", prefix, "", some) for prefix, some in zip(lone, fresh, strict=True)]
            again = yield from read_solutions(batches, counts)
            resampled = {
                p: with_first_errors(problem, some, context.checker) for p, some in zip(lone, again, strict=True)
            }
            for wrong_step in wrong_steps:
                if some := resampled.get(wrong_step.prefix):
                    right[wrong_step.prefix] = wrong_step.continued_rightly(some)
        sides = list(pair_up(wrong_steps, right))
        pairs = tuple(step_pair(problem, wrong_step, chosen) for wrong_step, chosen in sides)
        result = Result(pairs, "pairs" if pairs else _why_none(solutions, faulty, wrong_steps), counts)
        if not self.baselines:
            return result
        more = yield from self._more(prompt, drawn)
        counts.update({f"tokens of {part}": sum(c.tokens for c in some) for part, some in drawn.items()})
        chosen = [(wrong_step.index, solution) for wrong_step, solution in sides]
        return replace(result, baselines=baselines(problem, solutions, more, chosen, self.max_pairs_per_problem))

    def _more(self, prompt: Prompt, drawn: dict[str, list[Completion]]) -> Generator[Request, Any, Sequence[Solution]]:
        """The extra samples, which no pair is made of; they are added to `drawn`, and to no other count."""
        if not self.extra_samples:
            return ()
        (drawn[EXTRA],) = yield Generate((prompt.text,), self.extra_samples, again=1)
        (more,) = yield from read_solutions([SampledBatch("x", "", prompt.joint, drawn[EXTRA])], Counter())
        return more


def _why_none(solutions: Sequence[Solution], faulty: Sequence[Solution], wrong_steps: Sequence[WrongStep]) -> str:
    if not solutions:
        return "no usable sample"
    if not faulty:
        return "no wrong sample"
    return "no right step found" if wrong_steps else "no wrong step found"


def with_first_errors(problem: Problem, solutions: Sequence[Solution], checker: Checker) -> list[Solution]:
    """The solutions with their first wrong steps, in the eyes of an exact checker."""
    return [replace(s, error=checker.first_error(problem, s.steps), checked=True) for s in solutions]


def count(solutions: Sequence[Solution], samples: int, counts: Counter[str]) -> None:
    """What came of the first sampling."""
    counts["samples"] += samples
    counts["right to the end"] += sum(s.right_to_the_end for s in solutions)
    counts["right answer over a wrong step"] += sum(s.correct and s.error is not None for s in solutions)
    counts["wrong"] += sum(not s.correct for s in solutions)


def find_wrong_steps(faulty: Sequence[Solution], solutions: Sequence[Solution]) -> list[WrongStep]:
    """The distinct first wrong steps of the faulty ones: new prefixes first, of these the ones with a right sibling."""
    wrong_steps: dict[tuple[str, str], WrongStep] = {}
    for solution in faulty:
        if solution.error is not None:
            wrong_step = WrongStep(solution, solution.error)
            wrong_steps.setdefault((wrong_step.prefix, wrong_step.step), wrong_step)
    # First those with a right sibling among the samples: where pairs are few, these cost nothing more.
    return new_prefixes_first(wrong_steps.values(), lambda wrong_step: not wrong_step.continued_rightly(solutions))


def pair_up(
    wrong_steps: Sequence[WrongStep], right: Mapping[str, Sequence[Solution]]
) -> Iterator[tuple[WrongStep, Solution]]:
    """A right solution for each wrong step whose prefix was continued rightly; those after one prefix take turns."""
    turns: Counter[str] = Counter()
    for wrong_step in wrong_steps:
        some = right[wrong_step.prefix]
        if not some:
            continue
        # Of right steps, those that lead to the right answer: a right step before a wrong one may be a dead end.
        best = [s for s in some if s.right_to_the_end] or some
        chosen = best[turns[wrong_step.prefix] % len(best)]
        turns[wrong_step.prefix] += 1
        yield wrong_step, chosen


def step_pair(problem: Problem, wrong_step: WrongStep, chosen: Solution) -> Preference:
    """The wrong step against the step that the chosen solution takes in its place."""
    meta = {"chosen_right_to_the_end": chosen.right_to_the_end}
    return next_steps(problem, wrong_step.index, chosen, wrong_step.wrong, **meta)
