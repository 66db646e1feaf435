"""All it takes to answer problems, as a value: it can be sent to another process and opened there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stepdpo.core.protocols import Sampler, SamplerSpec, Template
from stepdpo.core.types import Attempt, Problem, Prompt, Sampling
from stepdpo.data.shots import Shots
from stepdpo.evaluation.answer_groups import answer_groups
from stepdpo.evaluation.attempts import attempts_of
from stepdpo.evaluation.graders.pool import GradeMany, graders
from stepdpo.generation.answering import Answering
from stepdpo.generation.decode_many import context_of, decode_rounds
from stepdpo.generation.decoded import Decoded, Decoder
from stepdpo.generation.requests import JudgeFailed
from stepdpo.generation.step_scorer import StepScorer, of_worker
from stepdpo.models.load import ModelSpec, without_progress_bars
from stepdpo.tokens.tokenization import question_prompt


@dataclass(frozen=True)
class ProblemAttempts:
    """What came of one problem."""

    problem: str
    """Its id."""
    attempts: tuple[Attempt, ...]
    """One a decoder; none where it failed."""
    failed: str = ""
    """Why there are none, in a few words that many problems share; such a problem is tried again by resume=true."""
    said: str = ""
    """The last that was heard of whoever failed."""


@dataclass(frozen=True)
class Asking:
    """How a problem becomes what a model reads."""

    template: Template
    tokenizer: Any
    shots: Shots | None = None

    def prompt(self, problem: Problem) -> Prompt:
        """RowError where it cannot be written so.

        Worked examples are earlier turns: of a conversation where the template has turns, else blocks of text.
        """
        first, turns = self.shots.turns(problem.question) if self.shots else (problem.question, ())
        return question_prompt(self.template, first, turns, self.tokenizer)


@dataclass(frozen=True)
class EvaluationContext:
    """Decoders with the model and the parts they work with, none of them opened yet."""

    decoders: tuple[tuple[int | None, Decoder], ...]
    """Each attempts every problem; the number is the seed that an attempt is marked with."""
    scorer: StepScorer
    asking: Asking
    model: ModelSpec
    sampler: SamplerSpec

    @property
    def devices(self) -> int | None:
        """Those that the sampler takes."""
        devices: int | None = getattr(self.sampler, "devices", 1)
        return devices

    @contextmanager
    def open(self, name: str = "") -> Iterator[Worker]:
        """Load the models and start the graders. One of several workers has a name."""
        without_progress_bars()  # wherever this is
        with (
            graders() as grade_many,
            self.sampler.open(self.model) as sampler,
            of_worker(self.scorer, name).open(self.model, sampler) as score_steps,
        ):
            answering = Answering(
                sampler,
                Sampling(),
                score_steps=score_steps,
                group=lambda responses: answer_groups(responses, grade_many),
            )
            yield Worker(self, sampler, answering, grade_many)


@dataclass(frozen=True)
class Worker:
    """Models and graders, opened and ready to work."""

    context: EvaluationContext
    sampler: Sampler
    answering: Answering
    grade_many: GradeMany

    @property
    def provenance(self) -> dict[str, Any]:
        """What the sampler says of itself, and the scorer where it has something to say."""
        parts = (self.sampler, self.answering.score_steps)
        return {name: value for part in parts for name, value in getattr(part, "provenance", {}).items()}

    def work(self, group: Sequence[Problem]) -> Iterator[ProblemAttempts]:
        """The attempts at a group's problems, all worked on together, each problem's as soon as they are there."""
        decoders, asking = self.context.decoders, self.context.asking
        scored = self.answering.score_steps is not None
        contexts = [context_of(asking.prompt(problem), asking.tokenizer, scored) for problem in group]
        decodings = [decoder(context) for context in contexts for _, decoder in decoders]
        found: dict[int, dict[int, Decoded | JudgeFailed]] = {place: {} for place in range(len(group))}
        for finished in decode_rounds(decodings, self.answering):
            complete = []
            for number, decoded in finished:
                place, which = divmod(number, len(decoders))
                found[place][which] = decoded
                if len(found[place]) == len(decoders):
                    complete.append((group[place], found.pop(place)))
            yield from self._graded(complete)

    def _graded(
        self, complete: Sequence[tuple[Problem, dict[int, Decoded | JudgeFailed]]]
    ) -> Iterator[ProblemAttempts]:
        """Problems that were finished together are graded together, by workers side by side."""
        whole = [
            (problem, decoded, seed)
            for problem, by_decoder in complete
            if not _failure(by_decoder)
            for which, (seed, _) in enumerate(self.context.decoders)
            if isinstance(decoded := by_decoder[which], Decoded)
        ]
        attempts = iter(attempts_of(whole, self.grade_many))
        for problem, by_decoder in complete:
            if failure := _failure(by_decoder):
                yield ProblemAttempts(problem.id, (), failure.reason, failure.reply)
            else:
                yield ProblemAttempts(problem.id, tuple(next(attempts) for _ in by_decoder))


def _failure(by_decoder: dict[int, Decoded | JudgeFailed]) -> JudgeFailed | None:
    return next((one for one in by_decoder.values() if isinstance(one, JudgeFailed)), None)


def quiet(sampler: SamplerSpec) -> SamplerSpec:
    """The sampler without a bar of its own, where it has one."""
    shown: Any = sampler  # a dataclass like every spec
    silent: SamplerSpec = replace(shown, progress=False) if hasattr(shown, "progress") else sampler
    return silent
