"""Right solutions spoilt from a random step on by a rising temperature: step-controlled pairs.

Step-Controlled DPO (Lu et al. 2024, arXiv 2407.00782). The mistake lies after a known step, and neither a judge nor a
checker is needed for that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least, positive
from stepdpo.core.steps import final_answer_stated, label_of, split_steps, text_of
from stepdpo.core.types import CORRECT, WRONG, Preference, Problem, Prompt
from stepdpo.generation.step_sampling import Delimiter, opening, stop_strings
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, GradeAnswers, Request, Requests, Result
from stepdpo.pairs.solutions import SampledBatch, Solution, distinct, instance_pairs, next_steps, read_solutions

REPENTANT = re.compile("error|apologies", re.IGNORECASE)
"""Of a solution that may have gone wrong and corrected itself: not one to be taken as right from step to step."""
STOPS = stop_strings(Delimiter.step, 1)
"""One step a request: each has a temperature of its own."""


@dataclass(frozen=True)
class Controlled:
    """The rest of a right solution after a random step against a wrong continuation of the same steps."""

    temperature: float = 1.1
    """Of the first step that is continued with."""
    increment: float = 0.05
    """Added with every further step; the authors' code has 0.1."""
    max_temperature: float = 1.4
    tries: int = 8
    """Continuations of one right solution at most; the first wrong one is taken."""
    max_right: int = 1
    """Different right solutions a problem that are continued, each to one pair at most."""
    max_steps: int = 24
    """Of a solution, the shared steps among them; more are taken for garbled text."""
    max_step_chars: int = 3000
    """A longer step is taken for garbled text."""
    naive: bool = False
    """Whether to add a pair of one right and one wrong whole sample, which the authors mix in."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        positive(temperature=self.temperature, max_temperature=self.max_temperature)
        at_least(0, increment=self.increment)
        at_least(1, tries=self.tries, max_right=self.max_right, max_step_chars=self.max_step_chars)
        at_least(2, max_steps=self.max_steps)  # one that is shared, and one that is not
        if self.max_temperature < self.temperature:
            raise ValueError("max_temperature must not be below temperature, at which a continuation begins")

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Sample, grade, spoil right solutions from a random step on."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        right = [solution for solution in distinct(solutions) if solution.correct]
        counts.update({"samples": len(completions), "right": sum(s.correct for s in solutions)})
        fit = [solution for solution in right if self._fit(solution, counts)][: self.max_right]
        counts["right solutions continued"] += len(fit)
        pairs: list[Preference] = []
        for number, solution in enumerate(fit):
            # Every try of a problem has streams of its own, as two may go through the same steps.
            pair = yield from self._spoil(problem, prompt, solution, number * self.tries, context, counts)
            pairs += [pair] if pair else []
        counts["controlled pairs"] += len(pairs)
        if self.naive:
            mixed_in = instance_pairs(problem, solutions, 1, naive=True)
            counts["naive pairs"] += len(mixed_in)
            pairs += mixed_in
        if pairs:
            return Result(tuple(pairs), counts=counts)
        why = "no usable sample" if not solutions else "no right sample" if not right else "no right sample is fit"
        return Result(outcome="no wrong continuation" if fit else why, counts=counts)

    def _fit(self, solution: Solution, counts: Counter[str]) -> bool:
        """Whether a right solution can be continued; why not is counted."""
        why = self._garbled(solution.steps)
        if REPENTANT.search(solution.text):
            why = "that speak of errors"
        elif len(solution.steps) == 1:
            why = "of one step"
        if why:
            counts[f"right solutions {why}"] += 1
        return not why

    def _garbled(self, steps: Sequence[str]) -> str:
        if len(steps) > self.max_steps:
            return "with too many steps"
        return "with a step too long" if any(len(text_of(step)) > self.max_step_chars for step in steps) else ""

    def _spoil(
        self, problem: Problem, prompt: Prompt, right: Solution, before: int, context: Context, counts: Counter[str]
    ) -> Generator[Request, Any, Preference | None]:
        """Continue from one random step until a try goes wrong; `before` tries of the problem came before."""
        k = Random(f"{context.sampling.seed}/{problem.id}/{right.id}").randrange(len(right.steps) - 1)
        for number in range(before, before + self.tries):
            wrong = yield from self._try(prompt, right, k + 1, number, context.sampling.max_tokens)
            if isinstance(wrong, Solution) and (index := _parting(right, wrong, k + 1)) is not None:
                counts["tries that end wrong"] += 1
                about: dict[str, Any] = {
                    "temperatures": [self._temperature(i) for i in range(len(wrong.steps) - k - 1)],
                    "tries": number - before + 1,
                }
                return next_steps(problem, index, right, wrong, k=k, **about)
            counts[f"tries {wrong if isinstance(wrong, str) else 'that part nowhere'}"] += 1
        counts["right solutions that no try spoilt"] += 1
        return None

    def _try(
        self, prompt: Prompt, right: Solution, index: int, number: int, max_tokens: int
    ) -> Generator[Request, Any, Solution | str]:
        """A wrong continuation of the first `index` steps, step by step, as a whole solution; or what else it is."""
        text, tokens = right.prefix(index), 0
        label = int(re.sub(r"\D", "", label_of(right.steps[index])))
        for i in count():
            # The run's own max_tokens, not what is left of it: equal settings go to the sampler together.
            ((step,),) = yield Generate(
                (prompt.text + prompt.joint + text,), 1, again=number, temperature=self._temperature(i), stop=STOPS
            )
            text += step.text
            tokens += step.tokens
            steps = split_steps(text)[1]
            if step.finish == "length" or tokens > max_tokens:
                return "cut at max_tokens"
            if not step.text.strip():
                return "with an empty step"
            if garbled := self._garbled(steps):
                return garbled
            if step.finish == "eos" or final_answer_stated(step.text):
                break
            text += opening(Delimiter.step, label + i)
        if final_answer_stated(right.steps[-1]) and not final_answer_stated(step.text):
            return "without an answer"  # a grader may take any last number for one
        (grade,) = yield GradeAnswers((text,))
        if grade.verdict != WRONG:
            return "that end right" if grade.verdict == CORRECT else "without an answer"
        return Solution(f"c{number}", right.head, tuple(steps), correct=False)

    def _temperature(self, i: int) -> float:
        """Of step `i` of a continuation, from 0."""
        # Rounded: settings that differ in the last bit alone would not go to the sampler together.
        return min(round(self.temperature + self.increment * i, 6), self.max_temperature)


def _parting(right: Solution, wrong: Solution, index: int) -> int | None:
    """The first step from `index` on in which they differ; None where one merely goes on after the other's end.

    A hot continuation may begin as the right solution does; a pair is cut where its sides differ.
    """
    both = list(zip(right.steps, wrong.steps, strict=False))
    while index + 1 < len(both) and right.prefix(index + 1) == wrong.prefix(index + 1):
        index += 1
    return index if text_of(both[index][0]) != text_of(both[index][1]) else None
