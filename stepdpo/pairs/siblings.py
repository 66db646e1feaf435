"""Step pairs from a model's own solutions and an exact checker, after Step-DPO (Lai et al. 2024, arXiv 2406.18629).

Sample solutions; find the first wrong step of each one that ends wrong; pair it with a right step after the same
prefix, from another solution, or else sampled afresh from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from stepdpo.core.steps import cut_step
from stepdpo.core.types import Preference, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Requests, Result
from stepdpo.pairs.solutions import SampledBatch, Solution, next_steps, read_solutions


@dataclass(frozen=True, slots=True)
class WrongStep:
    """A wrong step and the solutions that go on rightly from where it was made."""

    wrong: Solution
    index: int
    prefix: str
    right: tuple[Solution, ...]


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
        """Sample, find faults, sample again where a fault has no right sibling."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (drawn,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, drawn)], counts)
        solutions = checked(problem, solutions, context.checker)
        count(solutions, len(drawn), counts)
        wrong_steps = find_wrong_steps(solutions)[: self.max_pairs_per_problem]
        lone = list(dict.fromkeys(wrong_step.prefix for wrong_step in wrong_steps if not wrong_step.right))
        rescued: dict[str, list[Solution]] = {}
        if lone and self.resample:
            fresh = yield Generate(tuple(prompt.text + prompt.joint + prefix for prefix in lone), self.resample)
            counts["resampled"] += sum(map(len, fresh))
            draws = [SampledBatch("r", prefix, "", some) for prefix, some in zip(lone, fresh, strict=True)]
            again = yield from read_solutions(draws, counts)
            rescued = {p: checked(problem, some, context.checker) for p, some in zip(lone, again, strict=True)}
        made = pair_up(problem, [f if f.right else with_right(f, rescued.get(f.prefix, [])) for f in wrong_steps])
        pairs = tuple(made)
        return Result(pairs, "pairs" if pairs else _why_none(solutions, wrong_steps), counts)


def _why_none(solutions: Sequence[Solution], wrong_steps: Sequence[WrongStep]) -> str:
    if not solutions:
        return "no usable sample"
    if all(s.correct for s in solutions):
        return "no wrong sample"
    return "no right step found" if wrong_steps else "no wrong step found"


def checked(problem: Problem, solutions: Sequence[Solution], checker: Any) -> list[Solution]:
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
        index = solution.wrong_at
        if index is None:
            continue
        prefix = solution.prefix(index)
        wrong_step = with_right(WrongStep(solution, index, prefix, ()), solutions)
        wrong_steps.setdefault((prefix, cut_step(solution.text[len(prefix) :])[0]), wrong_step)
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, bool, int, WrongStep]] = []
    for number, wrong_step in enumerate(wrong_steps.values()):
        ranked.append((seen[wrong_step.prefix], not wrong_step.right, number, wrong_step))
        seen[wrong_step.prefix] += 1
    return [wrong_step for *_, wrong_step in sorted(ranked, key=lambda entry: entry[:3])]


def with_right(wrong_step: WrongStep, solutions: Sequence[Solution]) -> WrongStep:
    """The fault with those solutions that go on rightly, the ones that are right to the end first."""
    right = [s for s in solutions if s.goes_on_rightly(wrong_step.prefix, wrong_step.index)]
    return WrongStep(
        wrong_step.wrong,
        wrong_step.index,
        wrong_step.prefix,
        tuple(sorted(right, key=lambda s: not s.right_to_the_end)),
    )


def pair_up(problem: Problem, wrong_steps: Sequence[WrongStep]) -> Iterator[Preference]:
    """One preference a fault that has a right side; faults with one prefix take turns among its right solutions."""
    turns: Counter[str] = Counter()
    for wrong_step in wrong_steps:
        if not wrong_step.right:
            continue
        best = [s for s in wrong_step.right if s.right_to_the_end] or list(wrong_step.right)
        chosen = best[turns[wrong_step.prefix] % len(best)]
        turns[wrong_step.prefix] += 1
        about = {"chosen_right_to_the_end": chosen.right_to_the_end}
        yield next_steps(problem, wrong_step.index, chosen, wrong_step.wrong, **about)
