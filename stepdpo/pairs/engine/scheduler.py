"""Schedules the requests of many problems: they are gathered, answered in full batches, and the answers sent back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from stepdpo.core.protocols import Sampler
from stepdpo.core.types import CORRECT, Completion, Grade, Problem, Sampling
from stepdpo.data.fields import RowError
from stepdpo.data.rows import EXCERPT
from stepdpo.pairs.engine.context import Context, PairMethod
from stepdpo.pairs.engine.requests import (
    AskJudge,
    Generate,
    GradeAnswers,
    JudgeFailed,
    ProblemResult,
    Request,
    Requests,
    Result,
    ScoreText,
)

GradeAll = Callable[[Sequence[tuple[str, Problem]]], list[Grade]]


def groups(problems: Iterable[Problem], size: int) -> Iterator[list[Problem]]:
    """The problems, `size` at a time."""
    remaining = iter(problems)
    while some := list(islice(remaining, size)):
        yield some


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
        replies: list[Any] = [None] * len(live)  # a generator is started by sending it None
        while live:
            for one, reply in zip(live, replies, strict=True):
                one.advance(reply)
            # Results go out before the next call to a model, which takes long: they are on disc if that is interrupted.
            yield from (one.result for one in live if one.result)
            live = [one for one in live if not one.result]
            replies = self.answer([(one.problem, one.request) for one in live if one.request is not None])

    def answer(self, requests: Sequence[tuple[Problem, Request]]) -> list[Any]:
        """One reply a request, in the order of the requests."""
        for _, request in requests:
            if not isinstance(request, Request):
                raise TypeError(f"pairs: a method yields requests and returns a Result; this one yielded {request!r}")
        replies: list[Any] = [None] * len(requests)
        for kind, together in (
            (Generate, self._generate),
            (GradeAnswers, self._grade),
            (ScoreText, self._score),
            (AskJudge, self._ask),
        ):
            places = [i for i, (_, request) in enumerate(requests) if isinstance(request, kind)]
            if places:
                for place, reply in zip(places, together([requests[i] for i in places]), strict=True):
                    replies[place] = reply
        return replies

    def _generate(self, requests: Sequence[tuple[Problem, Any]]) -> list[Any]:
        """Requests for the same settings go to the sampler together."""
        assert self.sampler is not None, "who requests text opens a sampler"
        alike: dict[Sampling, list[int]] = {}
        for number, (_, request) in enumerate(requests):
            alike.setdefault(self._settings(request), []).append(number)
        replies: list[list[list[Completion]]] = [[] for _ in requests]
        for settings, numbers in alike.items():
            prompts = [prompt for i in numbers for prompt in requests[i][1].prompts]
            streams = [stream for i in numbers for stream in _streams(requests[i][1])]
            completions = iter(self.sampler.sample(prompts, settings, streams))
            for i in numbers:
                replies[i] = list(islice(completions, len(requests[i][1].prompts)))
        return replies

    def _settings(self, request: Generate) -> Sampling:
        usual = self.sampling
        return Sampling(
            n=request.n,
            temperature=usual.temperature if request.temperature is None else request.temperature,
            top_p=usual.top_p if request.top_p is None else request.top_p,
            max_tokens=usual.max_tokens if request.max_tokens is None else request.max_tokens,
            stop=request.stop or usual.stop,
            seed=usual.seed,
            logps=request.logps,
        )

    def _grade(self, requests: Sequence[tuple[Problem, Any]]) -> list[Any]:
        grades = iter(self.grade([(text, problem) for problem, request in requests for text in request.responses]))
        return [list(islice(grades, len(request.responses))) for _, request in requests]

    def _score(self, requests: Sequence[tuple[Problem, Any]]) -> list[Any]:
        prompts = [text for _, request in requests for text in request.prompts]
        continuations = [text for _, request in requests for text in request.continuations]
        scorer: Any = self.sampler  # `score` is no part of a Sampler: not every one can
        nats = iter(scorer.score(prompts, continuations))
        return [list(islice(nats, len(request.prompts))) for _, request in requests]

    def _ask(self, requests: Sequence[tuple[Problem, Any]]) -> list[Any]:
        assert self.ask_judge is not None, "a judge that asks a model opens it"
        return self.ask_judge([request.message for _, request in requests])


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


def _streams(request: Generate) -> list[int]:
    """Which of the random streams of its text each prompt takes: another one every time the text comes."""
    before: dict[str, int] = {}
    streams = []
    for prompt in request.prompts:
        # Numbered within the problem, never by place in the batch: which problems run together is left without effect.
        streams.append(request.again + before.get(prompt, 0))
        before[prompt] = before.get(prompt, 0) + 1
    return streams
