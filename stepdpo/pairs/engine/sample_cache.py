"""What was sampled for one problem, remembered: nothing is generated twice, and everything can be used again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from stepdpo.core.types import Completion, Problem
from stepdpo.pairs.engine.context import Tools
from stepdpo.pairs.engine.requests import Ask, Sample, Unanswered
from stepdpo.pairs.solutions import Solution


class Memory:
    """The samples of one problem. An ask repeated gets the same answer, as its random streams are the same."""

    def __init__(self) -> None:
        self.answers: dict[Sample, list[list[Completion]]] = {}

    def ask(self, ask: Ask) -> Generator[Ask, Any, Any]:
        """The answer, from memory where it is there."""
        if not isinstance(ask, Sample):
            return (yield ask)
        if ask not in self.answers:
            self.answers[ask] = yield ask
        return self.answers[ask]

    def through(self, work: Generator[Ask, Any, Any]) -> Generator[Ask, Any, Any]:
        """Do this work, a judge's say; only what is new is asked for."""
        reply: Any = None
        while True:
            try:
                ask = work.throw(reply) if isinstance(reply, Unanswered) else work.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply = yield from self.ask(ask)
            except Unanswered as error:
                reply = error

    def drawn(self, like: Sample) -> tuple[list[Completion], int]:
        """What has followed the prompts of an ask under its settings, and how many times they were asked for."""
        wanted = replace(like, n=1, again=0)
        found = [answer for ask, answer in self.answers.items() if replace(ask, n=1, again=0) == wanted]
        return [completion for answer in found for some in answer for completion in some], len(found)


@dataclass(frozen=True)
class Case:
    """One problem being worked on by a source that has a judge."""

    problem: Problem
    tools: Tools
    memory: Memory = field(default_factory=Memory)
    counts: Counter[str] = field(default_factory=Counter)

    def judge(self, solution: Solution) -> Generator[Ask, Any, int | None]:
        """The first wrong step of a solution, in the judge's eyes."""
        verdict = yield from self.memory.through(self.tools.judge(self.problem, solution, self.tools))
        self.counts.update(verdict.counts)
        error: int | None = verdict.error
        return error if error is not None and 0 <= error < len(solution.steps) else None

    def sample(self, prefix: str, n: int) -> Generator[Ask, Any, list[Completion]]:
        """What follows a prefix, `n` times or more; what the judge has sampled from there counts."""
        prompt = self.tools.prompt(self.problem)
        ask = Sample((prompt.text + prompt.joint + prefix,), n)
        known, times = self.memory.drawn(ask)
        self.counts["judge's roll-outs used again"] += len(known)
        if len(known) < n:
            (fresh,) = yield from self.memory.ask(Sample(ask.prompts, n - len(known), again=times))
            self.counts["sampled from before it"] += len(fresh)
            known = [*known, *fresh]
        return known
