"""Schedules the requests of many problems: they are gathered, answered in full batches, and the answers sent back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepdpo.core.protocols import Sampler
from stepdpo.core.types import CORRECT, Problem, Sampling
from stepdpo.data.fields import RowError
from stepdpo.data.rows import EXCERPT
from stepdpo.generation.answering import Answering, GradeAll, in_rounds
from stepdpo.pairs.engine.context import Context, PairMethod
from stepdpo.pairs.engine.requests import (
    Generate,
    GradeAnswers,
    JudgeFailed,
    ProblemResult,
    Request,
    Requests,
    Result,
)


@dataclass
class Scheduler:
    """Runs the generators of many problems, and answers what they request in as few calls as it takes."""

    sampler: Sampler | None
    """One that offers `score` where text is to be scored. None where nothing is requested."""
    sampling: Sampling
    """What a request leaves open."""
    grade: GradeAll
    ask_judge: Callable[[Sequence[str]], list[Any]] | None = None
    """The judge's model: replies to messages, in their order; a JudgeFailed stands where none came."""

    def run(self, problems: Sequence[Problem], method: PairMethod, context: Context | None) -> Iterator[ProblemResult]:
        """Work on all of them together, and yield each as soon as it is finished.

        A round lets every open problem go on to its next request and then answers all requests at once, so a call to a
        model holds what as many problems want as are open.
        """
        given: Any = context  # None for a FileMethod alone, which does not look at it
        live = [_LiveProblem(problem, method(problem, given)) for problem in problems]
        for one in in_rounds(live, self._replies):
            assert one.result is not None
            yield one.result

    def _replies(self, live: Sequence[_LiveProblem]) -> list[Any]:
        return self.answer([(one.problem, one.request) for one in live if one.request is not None])

    def answer(self, requests: Sequence[tuple[Problem, Request]]) -> list[Any]:
        """One reply a request, in the order of the requests."""
        for _, request in requests:
            if not isinstance(request, Request):
                raise TypeError(f"pairs: a method yields requests and returns a Result; this one yielded {request!r}")
        return Answering(self.sampler, self.sampling, self.grade, self.ask_judge).answer(requests)


@dataclass
class _LiveProblem:
    """A problem that is worked on: its generator, and the request whose answer that waits for."""

    problem: Problem
    requests: Requests
    request: Request | None = None
    result: ProblemResult | None = None
    tokens: int = 0
    samples: int = 0
    graded: int = 0
    right: int = 0

    @property
    def finished(self) -> bool:
        return self.result is not None

    def advance(self, reply: Any) -> None:
        """Send the answer, and learn the next request or the result."""
        if isinstance(self.request, Generate):
            flat = [completion for some in reply for completion in some]
            self.samples += len(flat)
            self.tokens += sum(completion.tokens for completion in flat)
        if isinstance(self.request, GradeAnswers):
            self.graded += len(reply)
            self.right += sum(grade.verdict == CORRECT for grade in reply)
        try:
            failure = isinstance(reply, JudgeFailed)
            self.request = self.requests.throw(reply) if failure else self.requests.send(reply)
        except StopIteration as end:
            self.result = self._with_cost(end.value)
        except JudgeFailed as error:
            # Quarantined rather than raised: one problem that a judge cannot read must not end a run of thousands.
            failed = self._with_cost(Result(outcome=error.reason))
            self.result = replace(failed, judge_reply=error.reply, failed=True)
        except RowError as error:
            self.result = self._with_cost(Result(outcome=str(error), unusable=self.problem.question[:EXCERPT]))

    def _with_cost(self, result: Result) -> ProblemResult:
        return ProblemResult(self.problem.id, result, self.tokens, self.samples, graded=self.graded, right=self.right)
