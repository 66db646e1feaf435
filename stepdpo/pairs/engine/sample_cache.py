"""The samples of one problem, cached: nothing is generated twice, and what a judge sampled can be used for pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from stepdpo.core.types import Completion, Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, JudgeFailed, Request
from stepdpo.pairs.judges.verdict import Verdict
from stepdpo.pairs.solutions import Solution


class SampleCache:
    """The samples of one problem by their requests.

    An equal request gets an equal answer, as its random streams are the same; so the cache changes the cost alone.
    """

    def __init__(self) -> None:
        self.answers: dict[Generate, list[list[Completion]]] = {}

    def answer(self, request: Request) -> Generator[Request, Any, Any]:
        """The answer to a request, from the cache where it is there."""
        # Grades are cheap, and a judge's model is asked again for another reply: samples alone are worth keeping.
        if not isinstance(request, Generate):
            return (yield request)
        if request not in self.answers:
            self.answers[request] = yield request
        return self.answers[request]

    @property
    def tokens(self) -> int:
        """Generated for it."""
        return sum(completion.tokens for answer in self.answers.values() for some in answer for completion in some)

    def run(self, requests: Generator[Request, Any, Any]) -> Generator[Request, Any, Any]:
        """Run a judge's generator to its end, and pass on those of its requests that are not in the cache."""
        reply: Any = None
        while True:
            try:
                request = requests.throw(reply) if isinstance(reply, JudgeFailed) else requests.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply = yield from self.answer(request)
            except JudgeFailed as error:
                reply = error  # the judge hears of it first, as it may ask once more

    def samples(self, like: Generate) -> tuple[list[Completion], int]:
        """All completions of a request's prompts under its settings, and how many requests they came from."""
        wanted = replace(like, n=1, again=0)
        found = [answer for request, answer in self.answers.items() if replace(request, n=1, again=0) == wanted]
        return [completion for answer in found for some in answer for completion in some], len(found)


@dataclass(frozen=True)
class JudgedProblem:
    """One problem of a method that has a judge."""

    problem: Problem
    context: Context
    cache: SampleCache = field(default_factory=SampleCache)
    counts: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, int | None] = field(default_factory=dict)
    """What the judge has found in each text it was asked about."""

    def judge(self, solution: Solution) -> Generator[Request, Any, int | None]:
        """The first wrong step of a solution, in the judge's eyes."""
        assert self.context.judge is not None, "a method without its judge is refused before"
        verdict: Verdict = yield from self.cache.run(self.context.judge(self.problem, solution, self.context))
        self.counts.update(verdict.counts)
        return self._keep(solution, verdict)

    def told(self, solution: Solution) -> Solution:
        """The solution with its first wrong step, where the judge has looked, or can look without a request."""
        assert self.context.judge is not None, "a method without its judge is refused before"
        if solution.text not in self.verdicts:
            judging = self.context.judge(self.problem, solution, self.context)
            try:
                next(judging)
            except StopIteration as end:
                self._keep(solution, end.value)
            except JudgeFailed:
                return solution
            else:
                judging.close()
                return solution
        return replace(solution, error=self.verdicts[solution.text], checked=True)

    def _keep(self, solution: Solution, verdict: Verdict) -> int | None:
        error = verdict.error
        known = error if error is not None and 0 <= error < len(solution.steps) else None
        self.verdicts[solution.text] = known
        return known

    def sample(self, prefix: str, n: int) -> Generator[Request, Any, list[Completion]]:
        """Continuations of a prefix, `n` or more; those that the judge has sampled from there count."""
        prompt = self.context.prompt(self.problem)
        request = Generate((prompt.text + prompt.joint + prefix,), n)
        known, times = self.cache.samples(request)
        self.counts["judge's roll-outs used again"] += len(known)
        if len(known) < n:
            # `again` counts the judge's requests, so that these draw from streams that none of those has used
            (fresh,) = yield from self.cache.answer(Generate(request.prompts, n - len(known), again=times))
            self.counts["sampled from before it"] += len(fresh)
            known = [*known, *fresh]
        return known
