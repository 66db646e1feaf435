"""Step-DPO's three stages (Lai et al. 2024, arXiv 2406.18629, section 3.2): collect errors, localise, rectify.

Sample solutions and keep the wrong ones; let a judge find the first wrong step; sample again from the steps before it,
and take the next step of a solution that ends right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least, within
from stepdpo.core.types import Preference, Problem
from stepdpo.pairs.baselines import baselines
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Request, Requests, Result
from stepdpo.pairs.engine.sample_cache import JudgedProblem
from stepdpo.pairs.solutions import (
    Faults,
    SampledBatch,
    Solution,
    WrongStep,
    distinct,
    new_prefixes_first,
    next_steps,
    read_solutions,
)


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
    faults: Faults = Faults.wrong
    """wrong: solutions that end wrong are judged; any: after them those that end right, as far as max_per_question."""
    baselines: bool = False
    """Whether to write what other methods would be trained on; right solutions are judged for it."""

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __post_init__(self) -> None:
        counts = ("rectify", "max_per_question", "max_chosen_per_prefix", "max_pairs_per_problem")
        at_least(1, **{name: getattr(self, name) for name in counts})
        for of in ("solve_rate", "prefix_rate"):
            low, high = f"min_{of}", f"max_{of}"
            within(0, 1, **{name: getattr(self, name) for name in (low, high)})
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not be above {high}")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """The three stages; the outcome says after which of them nothing was left."""
        judged = JudgedProblem(problem, context)
        counts = judged.counts
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        right, wrong = [s for s in solutions if s.correct], [s for s in solutions if not s.correct]
        counts.update({"samples": len(completions), "right": len(right), "wrong": len(wrong)})
        if self.baselines:
            counts["tokens of samples"] += sum(completion.tokens for completion in completions)
        faulty = [*wrong, *self.faults.among(right)]
        if not faulty:
            nothing = Result(outcome="no wrong sample" if right else "no usable sample", counts=counts)
            # Its right solutions are what rejection sampling would be trained on all the same.
            return (yield from self._with_baselines(judged, solutions, [], nothing))
        if not self.min_solve_rate <= len(right) / len(completions) <= self.max_solve_rate:
            return Result(outcome="solve rate outside the window", counts=counts)
        outcome = "judge found no wrong step"
        sides: list[tuple[Preference, Solution]] = []
        turns: Counter[str] = Counter()
        for wrong_step in (yield from self._localise(judged, faulty)):
            if len(sides) < self.max_pairs_per_problem:
                outcome, found = yield from self._rectify(judged, wrong_step, right if self.reuse else [], turns)
                sides += found[: self.max_pairs_per_problem - len(sides)]
        result = Result(tuple(pair for pair, _ in sides), "pairs" if sides else outcome, counts)
        return (yield from self._with_baselines(judged, solutions, sides, result))

    def _with_baselines(
        self,
        judged: JudgedProblem,
        sampled: Sequence[Solution],
        sides: Sequence[tuple[Preference, Solution]],
        result: Result,
    ) -> Requests:
        """With what other methods are trained on; the judge is asked once about each right and each chosen solution."""
        if not self.baselines:
            return result
        verdicts: dict[str, int | None] = {}
        for solution in [*(s for s in sampled if s.correct), *(chosen for _, chosen in sides)]:
            if solution.text not in verdicts:
                verdicts[solution.text] = yield from judged.judge(solution)
        looked_at = [replace(s, error=verdicts.get(s.text), checked=s.text in verdicts) for s in sampled]
        chosen = [(int(pair.meta["step"]), replace(s, error=verdicts[s.text], checked=True)) for pair, s in sides]
        judged.counts["tokens of search"] += judged.cache.tokens
        rows = baselines(judged.problem, looked_at, (), chosen, self.max_pairs_per_problem)
        return replace(result, baselines=rows)

    def _localise(self, judged: JudgedProblem, faulty: Sequence[Solution]) -> Generator[Request, Any, list[WrongStep]]:
        """The second stage: the distinct wrong steps, those after new prefixes first."""
        wrong_steps: dict[tuple[str, str], WrongStep] = {}
        for solution in distinct(faulty)[: self.max_per_question]:
            index = yield from judged.judge(solution)
            judged.counts.update({"judged": 1, "wrong step found": index is not None})
            if index is not None and plain(step := WrongStep(solution, index).step):
                wrong_steps.setdefault((solution.prefix(index), plain(step)), WrongStep(solution, index))
        return new_prefixes_first(wrong_steps.values())

    def _rectify(
        self, judged: JudgedProblem, wrong_step: WrongStep, reused: Sequence[Solution], turns: Counter[str]
    ) -> Generator[Request, Any, tuple[str, list[tuple[Preference, Solution]]]]:
        """The third stage of one wrong step: what became of it, and its pairs with their chosen solutions."""
        counts = judged.counts
        completions = yield from judged.sample(wrong_step.prefix, self.rectify)
        (solutions,) = yield from read_solutions([SampledBatch("r", wrong_step.prefix, "", completions)], counts)
        right = [s for s in solutions if s.correct]
        rate = len(right) / len(completions)
        counts["right from before it"] += len(right)
        counts["right with the wrong step"] += sum(
            plain(wrong_step.after(s)[0]) == plain(wrong_step.step) for s in right
        )
        candidates = other_steps(wrong_step, [*reused, *right])
        if not candidates:
            return "only the wrong step again" if right else "not rectified", []
        if not self.min_prefix_rate <= rate <= self.max_prefix_rate:
            return "solve rate before the wrong step outside the window", []
        # Wrong steps after one prefix have the same candidates, as it is sampled from once: each begins where the one
        # before it stopped, so that they are paired with different right steps.
        first = turns[wrong_step.prefix] % len(candidates)
        chosen = yield from self._approved(judged, wrong_step, [*candidates[first:], *candidates[:first]])
        turns[wrong_step.prefix] += len(chosen)
        meta = {"prefix_rate": round(rate, 4)}
        index, wrong = wrong_step.index, wrong_step.wrong
        rejected = replace(wrong, error=index)
        # By the pair itself the chosen step is right, whoever has looked at the rest.
        pairs = [
            (next_steps(judged.problem, index, judged.told(one), rejected, index + 1, **meta), one) for one in chosen
        ]
        return "judge found the right step wrong", pairs

    def _approved(
        self, judged: JudgedProblem, wrong_step: WrongStep, candidates: Sequence[Solution]
    ) -> Generator[Request, Any, list[Solution]]:
        """The first few, or those with which the judge finds no fault up to and with the right step."""
        chosen: list[Solution] = []
        for solution in candidates:
            if len(chosen) == self.max_chosen_per_prefix:
                break
            error = (yield from judged.judge(solution)) if self.check_chosen else None
            if error is not None and error <= wrong_step.index:
                judged.counts["right step found wrong"] += 1
            else:
                chosen.append(solution)
        return chosen


def other_steps(wrong_step: WrongStep, solutions: Sequence[Solution]) -> list[Solution]:
    """Those solutions that go on from the prefix with another step, one of each such step."""
    found = {plain(wrong_step.step): wrong_step.wrong, "": wrong_step.wrong}  # neither the wrong step nor an empty one
    for solution in wrong_step.continued_rightly(solutions):
        found.setdefault(plain(wrong_step.after(solution)[0]), solution)
    return [solution for solution in found.values() if solution is not wrong_step.wrong]


def plain(step: str) -> str:
    """A step to compare with others: white space apart."""
    return " ".join(step.split())
