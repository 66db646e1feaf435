"""Sampled solutions, graded and split into steps, and their wrong steps: what pairs are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from stepdpo.core.steps import cut_step, prefix_before, split_steps, step_ends
from stepdpo.core.types import CORRECT, Completion, Mark, Preference, Problem
from stepdpo.pairs.engine.requests import GradeAnswers


@dataclass(frozen=True, slots=True)
class Solution:
    """One solution without the template's joint; `head` and `steps` together are its text."""

    id: str
    """Which sample of its problem it is."""
    head: str
    steps: tuple[str, ...]
    correct: bool
    """Whether its final answer is right, in the eyes of the grader."""
    error: int | None = None
    """Index of the first wrong step, where a checker has looked."""
    checked: bool = False
    """Whether a checker or a judge has looked for it to the end."""

    @property
    def text(self) -> str:
        return self.head + "".join(self.steps)

    @property
    def right_to_the_end(self) -> bool:
        return self.correct and self.error is None

    @property
    def up_to_error(self) -> str:
        """The text before its first wrong step: all of it where there is none."""
        if self.error is None:
            return self.text
        return (self.head + "".join(self.steps[: self.error])).removesuffix("\n")

    def prefix(self, index: int) -> str:
        """The text up to and including the label of a step."""
        return prefix_before(self.head, self.steps, index)

    def marks(self, right: int = 0) -> tuple[Mark, ...]:
        """Its steps: right before the first wrong one, wrong there, unknown after it.

        Where nobody has looked, the first `right` of them are right by what else is known, and there is none for 0.
        """
        ends = step_ends(self.head, self.steps)
        if self.checked or self.error is not None:
            right = len(ends) if self.error is None else self.error
        values = [1.0 if i < right else 0.0 if i == self.error else None for i in range(len(ends))]
        return tuple(map(Mark, ends, values)) if right or self.error is not None else ()

    def goes_on_rightly(self, prefix: str, index: int) -> bool:
        """Whether it begins with this prefix and its step `index`, which follows, is right."""
        return (
            index < len(self.steps)
            and (self.error is None or index < self.error)
            and self.text.startswith(prefix)
            and self.prefix(index) == prefix
        )


class Faults(Enum):
    """Whose first wrong step is a rejected side."""

    wrong = "wrong"
    """Of solutions that end wrong: grader and checker, or judge, agree that something went wrong."""
    any = "any"
    """Of those that end right by luck too: where answers are coarse these are many, and outcomes never show them."""

    def among(self, solutions: Iterable[Solution]) -> list[Solution]:
        """The solutions that are looked at."""
        return [solution for solution in solutions if self is Faults.any or not solution.correct]


@dataclass(frozen=True, slots=True)
class WrongStep:
    """The first wrong step of a solution."""

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

    def continued_rightly(self, solutions: Iterable[Solution]) -> list[Solution]:
        """Those of them that take a right step after the prefix."""
        return [solution for solution in solutions if solution.goes_on_rightly(self.prefix, self.index)]


def new_prefixes_first(
    wrong_steps: Iterable[WrongStep], rank: Callable[[WrongStep], int] = lambda wrong_step: 0
) -> list[WrongStep]:
    """The first wrong step after every prefix, then every second one, and so on; within these by `rank`, then in order.

    So a limit on the pairs of a problem leaves as many different prefixes as it can.
    """
    before: Counter[str] = Counter()
    ranked: list[tuple[int, int, WrongStep]] = []
    for wrong_step in wrong_steps:
        ranked.append((before[wrong_step.prefix], rank(wrong_step), wrong_step))
        before[wrong_step.prefix] += 1
    return [wrong_step for *_, wrong_step in sorted(ranked, key=lambda entry: entry[:2])]


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """Completions of one prompt."""

    name: str
    """What the names of its solutions begin with."""
    prefix: str
    """The part of the solution that stood in the prompt."""
    joint: str
    """What every completion must begin with, and what is no part of the solution."""
    completions: Sequence[Completion]


def read_solutions(
    batches: Iterable[SampledBatch], counts: Counter[str]
) -> Generator[GradeAnswers, Any, list[list[Solution]]]:
    """The solutions of every batch, graded in one request.

    Left out and counted: truncated responses, those that do not start with the joint, and those without steps.
    """
    found: list[list[tuple[str, str]]] = []
    for batch in batches:
        found.append([])
        for number, completion in enumerate(batch.completions):
            if completion.finish == "length":
                counts["cut at max_tokens"] += 1
            elif not completion.text.startswith(batch.joint):
                # Training puts the joint between prompt and response: without it the pair would hold a text that is
                # not the one sampled.
                counts["not in the template's form"] += 1
            else:
                found[-1].append((f"{batch.name}{number}", batch.prefix + completion.text[len(batch.joint) :]))
    texts = tuple(text for some in found for _, text in some)
    grades = iter((yield GradeAnswers(texts)) if texts else [])
    solutions: list[list[Solution]] = []
    for some in found:
        solutions.append([])
        for name, text in some:
            correct = next(grades).verdict == CORRECT
            head, steps = split_steps(text)
            if steps:
                solutions[-1].append(Solution(name, head, tuple(steps), correct))
            else:
                counts["without steps"] += 1
    return solutions


def distinct(solutions: Sequence[Solution]) -> list[Solution]:
    """One of each text, the first."""
    first: dict[str, Solution] = {}
    for solution in solutions:
        first.setdefault(solution.text, solution)
    return list(first.values())


def next_steps(
    problem: Problem, index: int, chosen: Solution, rejected: Solution, right: int = 0, **meta: Any
) -> Preference:
    """Step `index` of two solutions that share what is before it, with the rest of both.

    Where nobody has looked at the chosen one, its first `right` steps count as right all the same.
    """
    prefix = rejected.prefix(index)
    step, rest = cut_step(chosen.text[len(prefix) :])
    wrong_step, wrong_rest = cut_step(rejected.text[len(prefix) :])
    about = {"problem": problem.id, "step": index, "chosen_sample": chosen.id, "rejected_sample": rejected.id}
    return Preference(
        question=problem.question,
        prefix=prefix,
        chosen=step,
        rejected=wrong_step,
        chosen_rest=rest,
        rejected_rest=wrong_rest,
        answer=", ".join(problem.answers),
        chosen_steps=chosen.marks(right),
        rejected_steps=rejected.marks(),
        meta={**about, **meta},
    )


def instance_pairs(
    problem: Problem, solutions: Sequence[Solution], max_pairs: int, **meta: Any
) -> tuple[Preference, ...]:
    """Right against wrong solutions, in the order of the samples; no solution is in two pairs."""
    right = distinct([s for s in solutions if s.correct])
    wrong = distinct([s for s in solutions if not s.correct])
    sides = list(zip(right, wrong, strict=False))[:max_pairs]
    return tuple(_whole_pair(problem, chosen, rejected, meta) for chosen, rejected in sides)


def _whole_pair(problem: Problem, chosen: Solution, rejected: Solution, meta: Mapping[str, Any]) -> Preference:
    """Two whole responses, which end with the end-of-text token."""
    return Preference(
        question=problem.question,
        prefix="",
        chosen=chosen.text,
        rejected=rejected.text,
        answer=", ".join(problem.answers),
        whole=True,
        chosen_steps=chosen.marks(),
        rejected_steps=rejected.marks(),
        meta={"problem": problem.id, "chosen_sample": chosen.id, "rejected_sample": rejected.id, **meta},
    )
