"""Sampled solutions, split into steps and judged: what pairs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepdpo.pairs.tools import Tools
from stepdpo.records import CORRECT, Completion, Problem
from stepdpo.steps import prefix_before, split_steps


@dataclass(frozen=True, slots=True)
class Solution:
    """One solution without the template's joint; `head` and `steps` together are its text."""

    id: str
    """Which sample of its problem it is."""
    head: str
    steps: tuple[str, ...]
    error: int | None
    """Index of the first wrong step, in the eyes of the checker."""
    correct: bool
    """Whether its final answer is right, in the eyes of the grader."""

    @property
    def text(self) -> str:
        return self.head + "".join(self.steps)

    @property
    def right_to_the_end(self) -> bool:
        return self.correct and self.error is None

    @property
    def wrong_at(self) -> int | None:
        """The first wrong step of a solution that ends wrong: checker and grader must agree on a rejected side."""
        return None if self.correct else self.error

    def prefix(self, index: int) -> str:
        """The text up to and including the label of a step."""
        return prefix_before(self.head, self.steps, index)

    def goes_on_rightly(self, prefix: str, index: int) -> bool:
        """Whether it begins with this prefix and its step `index`, which follows, is right."""
        return (
            index < len(self.steps)
            and (self.error is None or index < self.error)
            and self.text.startswith(prefix)
            and self.prefix(index) == prefix
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """Completions of one prompt."""

    problem: Problem
    name: str
    """What the names of its solutions begin with."""
    before: str
    """Text of the solution that stood in the prompt."""
    joint: str
    """What every completion must begin with, and what is no part of the solution."""
    completions: Sequence[Completion]


def read(draws: Iterable[Draw], tools: Tools) -> list[list[Solution]]:
    """Judge the completions of every draw.

    Left out and counted: cut responses, those that do not start with the joint, and those without steps.
    """
    items: list[tuple[int, Problem, str, str]] = []
    groups = 0
    for draw in draws:
        for number, completion in enumerate(draw.completions):
            if completion.finish == "length":
                tools.yields["cut at max_tokens"] += 1
            elif not completion.text.startswith(draw.joint):
                tools.yields["not in the template's form"] += 1
            else:
                text = draw.before + completion.text[len(draw.joint) :]
                items.append((groups, draw.problem, f"{draw.name}{number}", text))
        groups += 1
    return _judge(items, groups, tools)


def _judge(items: Sequence[tuple[int, Problem, str, str]], groups: int, tools: Tools) -> list[list[Solution]]:
    solutions: list[list[Solution]] = [[] for _ in range(groups)]
    grades = tools.grade([(text, problem) for _, problem, _, text in items])
    for (group, problem, name, text), grade in zip(items, grades, strict=True):
        head, steps = split_steps(text)
        if not steps:
            tools.yields["without steps"] += 1
            continue
        error = tools.checker.first_error(problem, steps)
        solutions[group].append(Solution(name, head, tuple(steps), error, grade.verdict == CORRECT))
    return solutions
