"""The first wrong step as the one after which the model never reaches the right answer any more.

Roll-outs from a prefix as evidence for it are Math-Shepherd's (Wang et al. 2023, arXiv 2312.08935), the binary search
is OmegaPRM's (Luo et al. 2024, arXiv 2406.06592). `posterior`, which weighs how many are right, is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Request
from stepdpo.pairs.judges.first_error_posterior import first_error_posterior, most_informative
from stepdpo.pairs.judges.verdict import JudgeRequests, Verdict
from stepdpo.pairs.solutions import SampledBatch, Solution, read_solutions


class SearchStrategy(Enum):
    """Which prefixes are tried. The first three keep one with a success below one without, and end when they touch."""

    binary = "binary"
    """Halve the steps in question: about log2(steps) prefixes."""
    linear = "linear"
    """From the beginning to the first prefix without a success."""
    backward = "backward"
    """From the end to the last prefix with a success. A success is proof and a failure is not, so of several places
    where successes end this takes the last."""
    posterior = "posterior"
    """Where roll-outs tell most, `at_first` at a time, until a step's posterior is high (first_error_posterior.py)."""


@dataclass(frozen=True)
class Rollouts:
    r"""Step k is wrong if roll-outs from `...Step k:` reach the right answer and those from `...Step k+1:` do not.

    Roll-outs begin after the label of the next step, which the solution itself went on with. That is where a pair is
    cut, so successes show that the wrong step can be put right from there; and it is a place where tokens end, which
    the end of a step need not be. After the last step nothing is rolled out: the grader has found the answer wrong.

    A right solution has no wrong step in its eyes, as what follows each of its prefixes is a success.
    """

    rollouts: int = 8
    """Most roll-outs a prefix (`posterior`: on average, and four times as many from one). The fewer, the more often a
    right prefix looks hopeless."""
    at_first: int = 2
    """Drawn first; as long as none is right, as many again as there are, up to `rollouts`."""
    search: SearchStrategy = SearchStrategy.posterior
    confidence: float = 0.9
    """Of `posterior`: how probable a step must be for it to stop early."""
    temperature: float | None = None
    """Of the roll-outs; None for that of the solutions."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, rollouts=self.rollouts, at_first=self.at_first)
        positive(temperature=self.temperature, confidence=self.confidence)
        within(0, 1, confidence=self.confidence)

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests:
        """Narrow down where successes end: one from `low` (from the beginning: tried last), none from `high`."""
        counts: Counter[str] = Counter()
        if solution.correct:
            return Verdict(None, "its answer is right")
        if self.search is SearchStrategy.posterior:
            return (yield from self._most_probable(problem, solution, context, counts))
        low, high = 0, len(solution.steps)
        while high - low > 1:
            at = self._next(low, high)
            hopeful = yield from self._succeeds(problem, solution.prefix(at), context, counts)
            low, high = (at, high) if hopeful else (low, at)
        if low == 0 and not (yield from self._succeeds(problem, solution.prefix(0), context, counts)):
            return Verdict(None, "no roll-out from the beginning is right", {**counts, "judge: nothing right": 1})
        return Verdict(low, "", counts)

    def rate(self, problem: Problem, prefix: str, context: Context) -> Generator[Request, Any, float]:
        """The share of `rollouts` from a prefix that are right, which is Math-Shepherd's soft label of it."""
        right = yield from self._right(problem, prefix, self.rollouts, 0, context, Counter())
        return right / self.rollouts

    def _next(self, low: int, high: int) -> int:
        if self.search is SearchStrategy.binary:
            return (low + high) // 2
        return low + 1 if self.search is SearchStrategy.linear else high - 1

    def _succeeds(
        self, problem: Problem, prefix: str, context: Context, counts: Counter[str]
    ) -> Generator[Request, Any, bool]:
        """Whether any roll-out from the prefix is right."""
        counts["judge: prefixes"] += 1
        rollouts = again = 0
        while rollouts < self.rollouts:
            # One success is enough, and most sound prefixes have one soon: few first, then as many again as there are.
            n = min(max(rollouts, self.at_first), self.rollouts - rollouts)
            if (yield from self._right(problem, prefix, n, again, context, counts)):
                return True
            rollouts, again = rollouts + n, again + 1
        return False

    def _most_probable(
        self, problem: Problem, solution: Solution, context: Context, counts: Counter[str]
    ) -> Generator[Request, Any, Verdict]:
        """The beginning is never tried, as it is right whatever the first wrong step is."""
        size, times = len(solution.steps), Counter[int]()
        right, rollouts = [0] * size, [0] * size
        left = self.rollouts * (size - 1)
        now = first_error_posterior(right, rollouts)
        while left > 0 and max(now) < self.confidence:
            n = min(self.at_first, left)
            # Capped a prefix, at four times the average: one that stays undecided would take all that is left.
            at = most_informative(right, rollouts, n, 4 * self.rollouts)
            if at is None:
                break
            right[at] += yield from self._right(problem, solution.prefix(at), n, times[at], context, counts)
            rollouts[at], left = rollouts[at] + n, left - n
            times[at] += 1
            now = first_error_posterior(right, rollouts)
        counts["judge: prefixes"] += len(times)
        best = max(range(size), key=lambda k: now[k])
        return Verdict(best, f"probability {now[best]:.2f}", counts)

    def _right(
        self, problem: Problem, prefix: str, n: int, again: int, context: Context, counts: Counter[str]
    ) -> Generator[Request, Any, int]:
        """How many of `n` roll-outs from the prefix are right."""
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text + prompt.joint + prefix,), n, again, self.temperature)
        (solutions,) = yield from read_solutions([SampledBatch("j", prefix, "", completions)], Counter())
        counts["judge: roll-outs"] += n
        return sum(solution.correct for solution in solutions)
