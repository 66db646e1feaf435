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
from stepdpo.pairs.engine.context import Tools
from stepdpo.pairs.engine.requests import Made, Sample, Work
from stepdpo.pairs.solutions import Draw, Solution, next_steps, read


@dataclass(frozen=True, slots=True)
class Fault:
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

    def __call__(self, problem: Problem, tools: Tools) -> Work:
        """Sample, find faults, sample again where a fault has no right sibling."""
        counts: Counter[str] = Counter()
        prompt = tools.prompt(problem)
        (drawn,) = yield Sample((prompt.text,), tools.sampling.n)
        (solutions,) = yield from read([Draw("s", "", prompt.joint, drawn)], counts)
        solutions = checked(problem, solutions, tools.checker)
        count(solutions, len(drawn), counts)
        faults = find_faults(solutions)[: self.max_pairs_per_problem]
        lone = list(dict.fromkeys(fault.prefix for fault in faults if not fault.right))
        rescued: dict[str, list[Solution]] = {}
        if lone and self.resample:
            fresh = yield Sample(tuple(prompt.text + prompt.joint + prefix for prefix in lone), self.resample)
            counts["resampled"] += sum(map(len, fresh))
            draws = [Draw("r", prefix, "", some) for prefix, some in zip(lone, fresh, strict=True)]
            again = yield from read(draws, counts)
            rescued = {p: checked(problem, some, tools.checker) for p, some in zip(lone, again, strict=True)}
        made = pair_up(problem, [f if f.right else with_right(f, rescued.get(f.prefix, [])) for f in faults])
        pairs = tuple(made)
        return Made(pairs, "pairs" if pairs else _why_none(solutions, faults), counts)


def _why_none(solutions: Sequence[Solution], faults: Sequence[Fault]) -> str:
    if not solutions:
        return "no usable sample"
    if all(s.correct for s in solutions):
        return "no wrong sample"
    return "no right step found" if faults else "no wrong step found"


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


def find_faults(solutions: Sequence[Solution]) -> list[Fault]:
    """The distinct wrong steps of one problem: new prefixes first, and of these the ones with a right sibling."""
    faults: dict[tuple[str, str], Fault] = {}
    for solution in solutions:
        index = solution.wrong_at
        if index is None:
            continue
        prefix = solution.prefix(index)
        fault = with_right(Fault(solution, index, prefix, ()), solutions)
        faults.setdefault((prefix, cut_step(solution.text[len(prefix) :])[0]), fault)
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, bool, int, Fault]] = []
    for number, fault in enumerate(faults.values()):
        ranked.append((seen[fault.prefix], not fault.right, number, fault))
        seen[fault.prefix] += 1
    return [fault for *_, fault in sorted(ranked, key=lambda entry: entry[:3])]


def with_right(fault: Fault, solutions: Sequence[Solution]) -> Fault:
    """The fault with those solutions that go on rightly, the ones that are right to the end first."""
    right = [s for s in solutions if s.goes_on_rightly(fault.prefix, fault.index)]
    return Fault(fault.wrong, fault.index, fault.prefix, tuple(sorted(right, key=lambda s: not s.right_to_the_end)))


def pair_up(problem: Problem, faults: Sequence[Fault]) -> Iterator[Preference]:
    """One preference a fault that has a right side; faults with one prefix take turns among its right solutions."""
    turns: Counter[str] = Counter()
    for fault in faults:
        if not fault.right:
            continue
        best = [s for s in fault.right if s.right_to_the_end] or list(fault.right)
        chosen = best[turns[fault.prefix] % len(best)]
        turns[fault.prefix] += 1
        about = {"chosen_right_to_the_end": chosen.right_to_the_end}
        yield next_steps(problem, fault.index, chosen, fault.wrong, **about)
