"""Answers the requests of many problems: they are gathered, and answered in as few calls as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from stepdpo.core.errors import Outage
from stepdpo.core.protocols import Sampler
from stepdpo.core.types import Completion, Grade, Problem, Sampling
from stepdpo.generation.requests import (
    AskJudge,
    Beginning,
    Generate,
    GradeAnswers,
    GroupAnswers,
    JudgeFailed,
    Request,
    Scored,
    ScoreSteps,
    ScoreText,
)

GradeAll = Callable[[Sequence[tuple[str, Problem]]], list[Grade]]
ScoreAll = Callable[[Sequence[tuple[str, Beginning]]], Sequence[Scored | JudgeFailed]]
"""Prompts, each with the beginning of a response to it -> how promising each is; a JudgeFailed stands where nobody
said."""
GroupAll = Callable[[Sequence[Sequence[str]]], list[list[int | None]]]
"""The responses to each problem -> the number of each one's final answer, as `GroupAnswers` has it."""


class Live(Protocol):
    """A generator that is worked on."""

    @property
    def finished(self) -> bool: ...
    def advance(self, reply: Any) -> None:
        """Send it the answer to its request, at first None, and learn the next request or the result."""
        ...


L = TypeVar("L", bound=Live)


def in_rounds(live: Sequence[L], replies_to: Callable[[Sequence[L]], list[Any]]) -> Iterator[L]:
    """Work on all of them together, and yield each as soon as it is finished."""
    for finished in rounds(live, replies_to):
        yield from finished


def rounds(live: Sequence[L], replies_to: Callable[[Sequence[L]], list[Any]]) -> Iterator[list[L]]:
    """Work on all of them together, and yield those that each round has finished, where it has.

    A round lets every one that is open go on to its next request and then answers all requests at once, so a call to a
    model holds what as many problems want as are open.
    """
    replies: list[Any] = [None] * len(live)  # a generator is started by sending it None
    while live:
        for one, reply in zip(live, replies, strict=True):
            one.advance(reply)
        # Results go out before the next call to a model, which takes long: they are on disc if that is interrupted.
        if finished := [one for one in live if one.finished]:
            yield finished
        live = [one for one in live if not one.finished]
        replies = replies_to(live)


@dataclass(frozen=True)
class Answering:
    """What answers requests."""

    sampler: Sampler | None
    """One that offers `score` where text is to be scored. None where nothing is requested."""
    sampling: Sampling
    """What a request leaves open."""
    grade: GradeAll | None = None
    ask_judge: Callable[[Sequence[str]], list[Any]] | None = None
    """The judge's model: replies to messages, in their order; a JudgeFailed stands where none came."""
    score_steps: ScoreAll | None = None
    group: GroupAll | None = None

    def answer(self, requests: Sequence[tuple[Any, Request]]) -> list[Any]:
        """One reply a request, in the order of the requests; before each stands its problem, for whoever grades."""
        replies: list[Any] = [None] * len(requests)
        for kind, together in (
            (Generate, self._generate),
            (GradeAnswers, self._grade),
            (ScoreText, self._score),
            (AskJudge, self._ask),
            (ScoreSteps, self._score_steps),
            (GroupAnswers, self._group),
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
            seed=usual.seed if request.seed is None else request.seed,
            logps=request.logps,
        )

    def _grade(self, requests: Sequence[tuple[Problem, Any]]) -> list[Any]:
        assert self.grade is not None, "who wants answers graded brings a grader"
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

    def _score_steps(self, requests: Sequence[tuple[Any, Any]]) -> list[Any]:
        assert self.score_steps is not None, "a decoder that needs a scorer is refused without one"
        asked = [(request.prompt, beginning) for _, request in requests for beginning in request.beginnings]
        try:
            scored = iter(self.score_steps(asked))
        except Outage as error:
            # Not raised: what models have written for these problems is lost, but the other problems need not be.
            return [JudgeFailed("scorer: no answer", str(error))] * len(requests)
        replies = [list(islice(scored, len(request.beginnings))) for _, request in requests]
        return [next((one for one in reply if isinstance(one, JudgeFailed)), reply) for reply in replies]

    def _group(self, requests: Sequence[tuple[Any, Any]]) -> list[Any]:
        assert self.group is not None, "a decoder that compares answers says so in `needs`"
        return self.group([request.responses for _, request in requests])


def _streams(request: Generate) -> list[int]:
    """Which of the random streams of its text each prompt takes: another one every time the text comes."""
    before: dict[str, int] = {}
    streams = []
    for prompt in request.prompts:
        # Numbered within the problem, never by place in the batch: which problems run together is left without effect.
        streams.append(request.again + before.get(prompt, 0))
        before[prompt] = before.get(prompt, 0) + 1
    return streams
