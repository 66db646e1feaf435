"""Step pairs from a model's own solutions and an exact checker, after Step-DPO (Lai et al. 2024, arXiv 2406.18629).

Sample solutions; find the first wrong step of each one that ends wrong; pair it with a right step after the same
prefix, from another solution, or else sampled afresh from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from stepdpo.pairs.solutions import Draw, Solution, read
from stepdpo.pairs.tools import Tools
from stepdpo.records import Preference, Problem
from stepdpo.steps import cut_step


@dataclass(frozen=True, slots=True)
class Fault:
    """A wrong step and the solutions that go on rightly from where it was made."""

    wrong: Solution
    index: int
    prefix: str
    right: tuple[Solution, ...]


@dataclass(frozen=True)
class Sampled:
    """First wrong step against a right one after exactly the same prefix."""

    resample: int = 8
    """Fresh continuations where no other sample goes on rightly from the prefix; 0 for none."""
    max_pairs_per_problem: int = 4
    """Different prefixes come first."""
    batch: int = 512
    """Problems sampled together."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __post_init__(self) -> None:
        if self.resample < 0 or self.max_pairs_per_problem < 1 or self.batch < 1:
            raise ValueError("resample must be at least 0, max_pairs_per_problem and batch at least 1")

    def __call__(self, problems: Iterable[Problem], tools: Tools) -> Iterator[Preference]:
        remaining = iter(problems)
        while some := list(islice(remaining, self.batch)):
            yield from self._batch(some, tools)

    def _batch(self, problems: Sequence[Problem], tools: Tools) -> Iterator[Preference]:
        prompts = [tools.prompt(problem) for problem in problems]
        drawn = zip(problems, prompts, tools.sample([p.text for p in prompts], tools.sampling.n), strict=True)
        solutions = read((Draw(problem, "s", "", prompt.joint, c) for problem, prompt, c in drawn), tools)
        count(solutions, problems, tools)
        faults = [find_faults(some)[: self.max_pairs_per_problem] for some in solutions]
        lone = list(dict.fromkeys((i, f.prefix) for i, found in enumerate(faults) for f in found if not f.right))
        fresh = tools.sample([prompts[i].text + prompts[i].joint + prefix for i, prefix in lone], self.resample)
        redrawn = zip(lone, fresh, strict=True)
        again = read((Draw(problems[i], "r", prefix, "", c) for (i, prefix), c in redrawn), tools)
        tools.yields["resampled"] += sum(map(len, fresh))
        rescued = dict(zip(lone, again, strict=True))
        for i, (problem, found) in enumerate(zip(problems, faults, strict=True)):
            whole = [f if f.right else with_right(f, rescued.get((i, f.prefix), [])) for f in found]
            made = list(pair_up(problem, whole))
            tools.yields["pairs"] += len(made)
            yield from made


def count(solutions: Sequence[Sequence[Solution]], problems: Sequence[Problem], tools: Tools) -> None:
    """What came of the first sampling."""
    flat = [solution for some in solutions for solution in some]
    tools.yields["problems"] += len(problems)
    tools.yields["samples"] += len(problems) * tools.sampling.n
    tools.yields["right to the end"] += sum(s.right_to_the_end for s in flat)
    tools.yields["right answer over a wrong step"] += sum(s.correct and s.error is not None for s in flat)
    tools.yields["wrong"] += sum(not s.correct for s in flat)
    tools.yields["wrong step found"] += sum(s.wrong_at is not None for s in flat)


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
        step, rest = cut_step(chosen.text[len(fault.prefix) :])
        wrong_step, wrong_rest = cut_step(fault.wrong.text[len(fault.prefix) :])
        yield Preference(
            question=problem.question,
            prefix=fault.prefix,
            chosen=step,
            rejected=wrong_step,
            chosen_rest=rest,
            rejected_rest=wrong_rest,
            answer=", ".join(problem.answers),
            meta={
                "problem": problem.id,
                "step": fault.index,
                "chosen_sample": chosen.id,
                "rejected_sample": fault.wrong.id,
                "chosen_right_to_the_end": chosen.right_to_the_end,
            },
        )
