"""Many problems at once: what their sources ask for is gathered, answered in full batches, and handed back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from stepdpo.core.types import CORRECT, Completion, Grade, Problem, Sampling
from stepdpo.pairs.engine.requests import Ask, Consult, Finished, Made, Mark, Sample, Unanswered, Weigh, Work

GradeAll = Callable[[Sequence[tuple[str, Problem]]], list[Grade]]


def groups(problems: Iterable[Problem], size: int) -> Iterator[list[Problem]]:
    """The problems, `size` at a time."""
    remaining = iter(problems)
    while some := list(islice(remaining, size)):
        yield some


def drive(problems: Sequence[Problem], source: Any, tools: Any, desk: Desk) -> Iterator[Finished]:
    """Work on all of them together, and yield each as soon as it is done."""
    live = [_Live(problem, source(problem, tools)) for problem in problems]
    replies: list[Any] = [None] * len(live)
    while live:
        for one, reply in zip(live, replies, strict=True):
            one.go_on(reply)
        yield from (one.finished for one in live if one.finished)
        live = [one for one in live if not one.finished]
        replies = desk.answer([(one.problem, one.ask) for one in live if one.ask is not None])


@dataclass
class _Live:
    """A problem being worked on, and what it waits for."""

    problem: Problem
    work: Work
    ask: Ask | None = None
    finished: Finished | None = None
    tokens: int = 0
    samples: int = 0
    graded: int = 0
    right: int = 0

    def go_on(self, reply: Any) -> None:
        """Hand over an answer and learn what is asked for next."""
        if isinstance(self.ask, Sample):
            flat = [completion for some in reply for completion in some]
            self.samples += len(flat)
            self.tokens += sum(completion.tokens for completion in flat)
        if isinstance(self.ask, Mark):
            self.graded += len(reply)
            self.right += sum(grade.verdict == CORRECT for grade in reply)
        try:
            failure = isinstance(reply, Unanswered)
            self.ask = self.work.throw(reply) if failure else self.work.send(reply)
        except StopIteration as end:
            self.finished = self._finished(end.value)
        except Unanswered as error:
            self.finished = replace(self._finished(Made(outcome=error.reason)), quarantined=error.answer, failed=True)

    def _finished(self, made: Made) -> Finished:
        return Finished(self.problem.id, made, self.tokens, self.samples, graded=self.graded, right=self.right)


@dataclass
class Desk:
    """Answers what many problems ask at once, in as few calls as it takes."""

    sampler: Any
    sampling: Sampling
    """What an ask leaves open."""
    grade: GradeAll
    consult: Callable[[Sequence[str]], list[Any]] | None = None
    """The judge's model: replies to messages, in their order; an Unanswered stands where none came."""

    def answer(self, asks: Sequence[tuple[Problem, Ask]]) -> list[Any]:
        """One reply an ask, in the order of the asks."""
        replies: list[Any] = [None] * len(asks)
        for kind, together in ((Sample, self._sample), (Mark, self._mark), (Weigh, self._weigh), (Consult, self._ask)):
            places = [i for i, (_, ask) in enumerate(asks) if isinstance(ask, kind)]
            if places:
                for place, reply in zip(places, together([asks[i] for i in places]), strict=True):
                    replies[place] = reply
        return replies

    def _sample(self, asks: Sequence[tuple[Problem, Any]]) -> list[Any]:
        """Asks that want the same settings go to the sampler together."""
        alike: dict[Sampling, list[int]] = {}
        for number, (_, ask) in enumerate(asks):
            alike.setdefault(self._settings(ask), []).append(number)
        replies: list[list[list[Completion]]] = [[] for _ in asks]
        for settings, numbers in alike.items():
            prompts = [prompt for i in numbers for prompt in asks[i][1].prompts]
            streams = [stream for i in numbers for stream in _streams(asks[i][1])]
            drawn = iter(self.sampler.sample(prompts, settings, streams))
            for i in numbers:
                replies[i] = list(islice(drawn, len(asks[i][1].prompts)))
        return replies

    def _settings(self, ask: Sample) -> Sampling:
        usual = self.sampling
        return Sampling(
            n=ask.n,
            temperature=usual.temperature if ask.temperature is None else ask.temperature,
            top_p=usual.top_p if ask.top_p is None else ask.top_p,
            max_tokens=usual.max_tokens if ask.max_tokens is None else ask.max_tokens,
            stop=ask.stop or usual.stop,
            seed=usual.seed,
            logps=ask.logps,
        )

    def _mark(self, asks: Sequence[tuple[Problem, Any]]) -> list[Any]:
        grades = iter(self.grade([(text, problem) for problem, ask in asks for text in ask.responses]))
        return [list(islice(grades, len(ask.responses))) for _, ask in asks]

    def _weigh(self, asks: Sequence[tuple[Problem, Any]]) -> list[Any]:
        prompts = [text for _, ask in asks for text in ask.prompts]
        continuations = [text for _, ask in asks for text in ask.continuations]
        nats = iter(self.sampler.weigh(prompts, continuations))
        return [list(islice(nats, len(ask.prompts))) for _, ask in asks]

    def _ask(self, asks: Sequence[tuple[Problem, Any]]) -> list[Any]:
        assert self.consult is not None, "a judge that consults a model opens it"
        return self.consult([ask.message for _, ask in asks])


def _streams(ask: Sample) -> list[int]:
    """Which of the random streams of its text each prompt takes: a fresh one every time."""
    seen: dict[str, int] = {}
    streams = []
    for prompt in ask.prompts:
        streams.append(ask.again + seen.get(prompt, 0))
        seen[prompt] = seen.get(prompt, 0) + 1
    return streams
