"""Step-DPO's three stages (Lai et al. 2024, arXiv 2406.18629, section 3.2): collect errors, localise, rectify.

Sample solutions and keep the wrong ones; let a judge find the first wrong step; sample again from the steps before it,
and take the next step of a solution that ends right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from stepdpo.core.steps import cut_step
from stepdpo.core.types import Preference, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Request, Requests, Result
from stepdpo.pairs.engine.sample_cache import JudgedProblem
from stepdpo.pairs.solutions import SampledBatch, Solution, distinct, next_steps, read_solutions


@dataclass(frozen=True, slots=True)
class WrongStep:
    """A wrong step of a solution that ends wrong."""

    wrong: Solution
    index: int

    @property
    def prefix(self) -> str:
        """The steps before it, and its label."""
        return self.wrong.prefix(self.index)

    @property
    def step(self) -> str:
        return self.after(self.wrong)[0]

    def after(self, solution: Solution) -> tuple[str, str]:
        """The step that a solution takes after the prefix, and the rest of it."""
        return cut_step(solution.text[len(self.prefix) :])

    def others(self, solutions: Sequence[Solution]) -> list[Solution]:
        """Those of them that go on from the prefix with another step, one of each such step."""
        found = {plain(self.step): self.wrong, "": self.wrong}
        for solution in solutions:
            if solution.goes_on_rightly(self.prefix, self.index):
                found.setdefault(plain(self.after(solution)[0]), solution)
        return [solution for solution in found.values() if solution is not self.wrong]


@dataclass(frozen=True)
class Localise:
    """First wrong step, as a judge finds it, against the next step of a solution that ends right."""

    rectify: int = 20
    """Samples from the steps before a wrong one; what a judge has sampled from there counts among them."""
    max_per_question: int = 1
    """Most wrong solutions that are judged."""
    max_chosen_per_prefix: int = 1
    """Most right steps that one wrong step is paired with."""
    max_pairs_per_problem: int = 4
    """Different prefixes come first."""
    min_solve_rate: float = 0.0
    """Problems of which a smaller share of samples is right are left out."""
    max_solve_rate: float = 1.0
    min_prefix_rate: float = 0.0
    """Wrong steps before which a smaller share of samples is right are left out."""
    max_prefix_rate: float = 1.0
    check_chosen: bool = False
    """Whether the judge must find no fault with the right step either."""
    reuse: bool = False
    """Whether right solutions of the first stage that begin with the prefix are taken too, and first."""

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __post_init__(self) -> None:
        if min(self.rectify, self.max_per_question, self.max_chosen_per_prefix, self.max_pairs_per_problem) < 1:
            raise ValueError(
                "rectify, max_per_question, max_chosen_per_prefix and max_pairs_per_problem must be at least 1"
            )
        for low, high in ((self.min_solve_rate, self.max_solve_rate), (self.min_prefix_rate, self.max_prefix_rate)):
            if not 0 <= low <= high <= 1:
                raise ValueError("0 <= min_solve_rate <= max_solve_rate <= 1, and so for min_ and max_prefix_rate")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """The three stages; the outcome says after which of them nothing was left."""
        case = JudgedProblem(problem, context)
        prompt = context.prompt(problem)
        (drawn,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, drawn)], case.counts)
        right, wrong = [s for s in solutions if s.correct], [s for s in solutions if not s.correct]
        case.counts.update({"samples": len(drawn), "right": len(right), "wrong": len(wrong)})
        if not wrong:
            return Result(outcome="no wrong sample" if right else "no usable sample", counts=case.counts)
        if not self.min_solve_rate <= len(right) / len(drawn) <= self.max_solve_rate:
            return Result(outcome="solve rate outside the window", counts=case.counts)
        outcome = "judge found no wrong step"
        pairs: list[Preference] = []
        turns: Counter[str] = Counter()
        for wrong_step in (yield from self._localise(case, wrong)):
            if len(pairs) < self.max_pairs_per_problem:
                outcome, made = yield from self._rectify(case, wrong_step, right if self.reuse else [], turns)
                pairs += made[: self.max_pairs_per_problem - len(pairs)]
        return Result(tuple(pairs), "pairs" if pairs else outcome, case.counts)

    def _localise(self, case: JudgedProblem, wrong: Sequence[Solution]) -> Generator[Request, Any, list[WrongStep]]:
        """The second stage: the distinct wrong steps, those after new prefixes first."""
        wrong_steps: dict[tuple[str, str], WrongStep] = {}
        for solution in distinct(wrong)[: self.max_per_question]:
            index = yield from case.judge(solution)
            case.counts.update({"judged": 1, "wrong step found": index is not None})
            if index is not None and plain(step := WrongStep(solution, index).step):
                wrong_steps.setdefault((solution.prefix(index), plain(step)), WrongStep(solution, index))
        seen: Counter[str] = Counter()
        ranked = []
        for wrong_step in wrong_steps.values():
            ranked.append((seen[wrong_step.prefix], wrong_step))
            seen[wrong_step.prefix] += 1
        return [wrong_step for _, wrong_step in sorted(ranked, key=lambda entry: entry[0])]

    def _rectify(
        self, case: JudgedProblem, wrong_step: WrongStep, reused: Sequence[Solution], turns: Counter[str]
    ) -> Generator[Request, Any, tuple[str, list[Preference]]]:
        """The third stage of one wrong step: what became of it, and its pairs."""
        drawn = yield from case.sample(wrong_step.prefix, self.rectify)
        (solutions,) = yield from read_solutions([SampledBatch("r", wrong_step.prefix, "", drawn)], case.counts)
        right = [s for s in solutions if s.correct]
        rate = len(right) / len(drawn)
        case.counts["right from before it"] += len(right)
        case.counts["right with the wrong step"] += sum(
            plain(wrong_step.after(s)[0]) == plain(wrong_step.step) for s in right
        )
        candidates = wrong_step.others([*reused, *right])
        if not candidates:
            return "only the wrong step again" if right else "not rectified", []
        if not self.min_prefix_rate <= rate <= self.max_prefix_rate:
            return "solve rate before the wrong step outside the window", []
        first = turns[wrong_step.prefix] % len(candidates)
        chosen = yield from self._approved(case, wrong_step, [*candidates[first:], *candidates[:first]])
        turns[wrong_step.prefix] += len(chosen)
        rate = round(rate, 4)
        made = [next_steps(case.problem, wrong_step.index, one, wrong_step.wrong, prefix_rate=rate) for one in chosen]
        return "judge found the right step wrong", made

    def _approved(
        self, case: JudgedProblem, wrong_step: WrongStep, candidates: Sequence[Solution]
    ) -> Generator[Request, Any, list[Solution]]:
        """The first few, or those with which the judge finds no fault up to and with the right step."""
        chosen: list[Solution] = []
        for solution in candidates:
            if len(chosen) == self.max_chosen_per_prefix:
                break
            error = (yield from case.judge(solution)) if self.check_chosen else None
            if error is not None and error <= wrong_step.index:
                case.counts["right step found wrong"] += 1
            else:
                chosen.append(solution)
        return chosen


def plain(step: str) -> str:
    """A step to compare with others: white space apart."""
    return " ".join(step.split())
