"""The first wrong step as the one after which the model never reaches the right answer any more.

Roll-outs from a prefix as evidence for it are Math-Shepherd's (Wang et al. 2023, arXiv 2312.08935), the binary search
is OmegaPRM's (Luo et al. 2024, arXiv 2406.06592).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from stepdpo.records import Problem
from stepdpo.workshop.asks import Ask, Sample
from stepdpo.workshop.solutions import Draw, Solution, read
from stepdpo.workshop.tools import Tools
from stepdpo.workshop.verdict import Judging, Verdict


class Search(Enum):
    """In which order prefixes are tried. All keep one with a success below one without, and end when the two touch."""

    binary = "binary"
    """Halve the steps in question: about log2(steps) prefixes."""
    linear = "linear"
    """From the beginning to the first prefix without a success."""
    backward = "backward"
    """From the end to the last prefix with a success. A success is proof and a failure is not, so of several places
    where successes end this takes the last."""


@dataclass(frozen=True)
class Rollouts:
    r"""Step k is wrong iff a roll-out from `...Step k:` reaches the right answer and none from `...Step k+1:` does.

    Roll-outs begin after the label of the next step, which the solution itself went on with. That is where a pair is
    cut, so successes show that the wrong step can be put right from there; and it is a place where tokens end, which
    the end of a step need not be. After the last step nothing is rolled out: the grader has found the answer wrong.

    A right solution has no wrong step in its eyes, as what follows each of its prefixes is a success.
    """

    rollouts: int = 8
    """Most roll-outs a prefix. The fewer, the more often a right prefix looks hopeless."""
    at_first: int = 2
    """Drawn first; as long as none is right, as many again as there are, up to `rollouts`."""
    search: Search = Search.binary
    temperature: float | None = None
    """Of the roll-outs; None for that of the solutions."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.rollouts < 1 or self.at_first < 1:
            raise ValueError("rollouts and at_first must be at least 1")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError("temperature must be above 0: roll-outs must differ")

    def __call__(self, problem: Problem, solution: Solution, tools: Tools) -> Judging:
        """Narrow down where successes end: one from `low` (from the beginning: looked at last), none from `high`."""
        counts: Counter[str] = Counter()
        if solution.correct:
            return Verdict(None, "its answer is right")
        low, high = 0, len(solution.steps)
        while high - low > 1:
            at = self._next(low, high)
            hopeful = yield from self._succeeds(problem, solution.prefix(at), tools, counts)
            low, high = (at, high) if hopeful else (low, at)
        if low == 0 and not (yield from self._succeeds(problem, solution.prefix(0), tools, counts)):
            return Verdict(None, "no roll-out from the beginning is right", {**counts, "judge: nothing right": 1})
        return Verdict(low, "", counts)

    def _next(self, low: int, high: int) -> int:
        if self.search is Search.binary:
            return (low + high) // 2
        return low + 1 if self.search is Search.linear else high - 1

    def _succeeds(self, problem: Problem, prefix: str, tools: Tools, counts: Counter[str]) -> Generator[Ask, Any, bool]:
        """Whether any roll-out from the prefix is right."""
        prompt = tools.prompt(problem)
        text = prompt.text + prompt.joint + prefix
        counts["judge: prefixes"] += 1
        made = again = 0
        while made < self.rollouts:
            n = min(max(made, self.at_first), self.rollouts - made)
            (drawn,) = yield Sample((text,), n, again, self.temperature)
            (solutions,) = yield from read([Draw("j", prefix, "", drawn)], Counter())
            made, again = made + n, again + 1
            counts["judge: roll-outs"] += n
            if any(solution.correct for solution in solutions):
                return True
        return False
