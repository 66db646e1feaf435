"""What was sampled for one problem, remembered: nothing is generated twice, and everything can be used again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from stepdpo.core.types import Completion, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, JudgeFailed, Request
from stepdpo.pairs.solutions import Solution


class SampleCache:
    """The samples of one problem. An ask repeated gets the same answer, as its random streams are the same."""

    def __init__(self) -> None:
        self.answers: dict[Generate, list[list[Completion]]] = {}

    def request(self, request: Request) -> Generator[Request, Any, Any]:
        """The answer, from memory where it is there."""
        if not isinstance(request, Generate):
            return (yield request)
        if request not in self.answers:
            self.answers[request] = yield request
        return self.answers[request]

    def through(self, work: Generator[Request, Any, Any]) -> Generator[Request, Any, Any]:
        """Do this work, a judge's say; only what is new is asked for."""
        reply: Any = None
        while True:
            try:
                request = work.throw(reply) if isinstance(reply, JudgeFailed) else work.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply = yield from self.request(request)
            except JudgeFailed as error:
                reply = error

    def drawn(self, like: Generate) -> tuple[list[Completion], int]:
        """What has followed the prompts of an ask under its settings, and how many times they were asked for."""
        wanted = replace(like, n=1, again=0)
        found = [answer for request, answer in self.answers.items() if replace(request, n=1, again=0) == wanted]
        return [completion for answer in found for some in answer for completion in some], len(found)


@dataclass(frozen=True)
class JudgedProblem:
    """One problem being worked on by a source that has a judge."""

    problem: Problem
    context: Context
    memory: SampleCache = field(default_factory=SampleCache)
    counts: Counter[str] = field(default_factory=Counter)

    def judge(self, solution: Solution) -> Generator[Request, Any, int | None]:
        """The first wrong step of a solution, in the judge's eyes."""
        assert self.context.judge is not None, "a method without its judge is refused before"
        verdict = yield from self.memory.through(self.context.judge(self.problem, solution, self.context))
        self.counts.update(verdict.counts)
        error: int | None = verdict.error
        return error if error is not None and 0 <= error < len(solution.steps) else None

    def sample(self, prefix: str, n: int) -> Generator[Request, Any, list[Completion]]:
        """What follows a prefix, `n` times or more; what the judge has sampled from there counts."""
        prompt = self.context.prompt(self.problem)
        request = Generate((prompt.text + prompt.joint + prefix,), n)
        known, times = self.memory.drawn(request)
        self.counts["judge's roll-outs used again"] += len(known)
        if len(known) < n:
            (fresh,) = yield from self.memory.request(Generate(request.prompts, n - len(known), again=times))
            self.counts["sampled from before it"] += len(fresh)
            known = [*known, *fresh]
        return known
