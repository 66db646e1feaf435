"""One loaded model that answers questions: who decodes and who scores may change, the model stays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from typing import Any, Protocol

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.protocols import Sampler, SamplerSpec, Template
from stepdpo.core.types import Completion, Prompt, Sampling
from stepdpo.data.fields import RowError
from stepdpo.data.template_card import date_of, resolve
from stepdpo.evaluation.answer_groups import answer_groups
from stepdpo.evaluation.graders.answers import find_answer
from stepdpo.evaluation.graders.pool import GradeMany, graders
from stepdpo.evaluation.identity import option
from stepdpo.generation.answering import Answering, ScoreAll
from stepdpo.generation.decode_many import context_of, decode_many
from stepdpo.generation.decoded import Cost, Decoded, Decoder, Response
from stepdpo.generation.requests import Beginning, JudgeFailed, Scored
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.scorers.value_head import ValueHead
from stepdpo.generation.step_scorer import StepScorer
from stepdpo.generation.transformers import LocalSampler
from stepdpo.generation.watched import Looked, Tell, WatchedSampler, Wrote, watched
from stepdpo.generation.whole_responses import beginning
from stepdpo.models.load import ModelSpec
from stepdpo.models.value_head import FILE
from stepdpo.runtime.manifest import started_on
from stepdpo.tokens.tokenization import question_prompt


class Parts(Protocol):
    """What a session is opened on."""

    @property
    def model(self) -> ModelSpec: ...
    @property
    def template(self) -> Template: ...
    @property
    def decode(self) -> Decoder: ...
    @property
    def sampler(self) -> SamplerSpec: ...
    @property
    def scorer(self) -> StepScorer: ...


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an answer."""

    text: str
    value: float | None = None
    """What the scorer says of it: a probability, or a logarithm."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One response, as it is shown; joined, its steps are its text."""

    steps: tuple[Step, ...]
    answer: str
    """The final answer that the graders find in it; empty where there is none."""
    finish: str
    share: float
    score: float | None = None
    voters: int = 0
    """Responses with the same final answer, this one too; 0 where none were compared."""

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def values(self) -> list[float]:
        return [step.value for step in self.steps if step.value is not None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question."""

    shown: tuple[Shown, ...]
    """The chosen response, those that tie with it, or all samples where none is chosen."""
    of: int
    """Responses there were."""
    log: bool
    """Whether values are logarithms."""
    scorer: str
    """Who gave the values; empty where there are none."""
    cost: Cost
    seconds: float


@contextmanager
def opened(parts: Parts) -> Iterator[Session]:
    """Load the model and what else it takes."""
    parts.scorer.must_fit(parts.model)
    tokenizer = parts.model.tokenizer()
    day = started_on(Path(parts.model.source))  # today: of a chat nothing is kept that could tell
    template, warning = resolve(parts.template, parts.model.source, tokenizer, day)
    quiet: Any = parts.sampler
    sampler_spec: SamplerSpec = replace(quiet, progress=False) if hasattr(quiet, "progress") else parts.sampler
    with ExitStack() as stack:
        sampler = stack.enter_context(sampler_spec.open(parts.model))
        grade_many = stack.enter_context(graders())
        session = Session(parts, template, tokenizer, sampler, grade_many)
        stack.callback(session.close)
        session.change(parts.decode, parts.scorer)
        if warning:
            session.notes.append(f"warning: {warning}")
        if date := date_of(template):
            session.notes.append(f"the chat template writes the date: {date}")
        yield session


class Session:
    """A model that is loaded, and what answers with it."""

    def __init__(
        self, parts: Parts, template: Template, tokenizer: Any, sampler: Sampler, grade_many: GradeMany
    ) -> None:
        self.model, self.template, self.tokenizer = parts.model, template, tokenizer
        self.sampler, self.grade_many = sampler, grade_many
        self.decode, self.scorer = parts.decode, parts.scorer
        self.notes: list[str] = []
        self._score: ScoreAll | None = None
        self._open = ExitStack()

    def change(self, decode: Decoder, scorer: StepScorer) -> None:
        """Answer by these from now on. Raises UserError for a scorer that does not fit, and leaves all as it was."""
        if self._score is None or scorer != self.scorer:
            scorer.must_fit(self.model)
            with ExitStack() as opening:
                score = opening.enter_context(self._shown_by(scorer).open(self.model, self.sampler))
                self._open.close()
                self._open, self._score = opening.pop_all(), score
        self.decode, self.scorer = decode, scorer

    def close(self) -> None:
        """Let go of the scorer."""
        self._open.close()

    def ask(self, question: str, tell: Tell) -> Answer:
        """The answer to a question; `tell` hears of the work, and ends it by what it raises.

        Raises UserError for a question that cannot be asked, Outage where a server or a scorer on one fails.
        """
        began = time.monotonic()
        try:
            question.encode()
            prompt = question_prompt(self.template, question, (), self.tokenizer)
        except RowError as error:
            raise UserError(f"this cannot be asked: {error}") from error
        except UnicodeEncodeError as error:
            raise UserError("this cannot be asked: it holds half characters, and is no text") from error
        known: dict[tuple[str, bool], tuple[Beginning, Scored]] = {}

        def hear(event: Wrote | Looked) -> None:
            if isinstance(event, Looked):
                known.update({(b.text, b.ended): (b, s) for b, s in zip(event.beginnings, event.scored, strict=True)})
            tell(event)

        asked = self._score if not isinstance(self.scorer, NoScorer) else None
        answering = Answering(
            WatchedSampler(self.sampler, prompt.text, hear),
            Sampling(),
            score_steps=watched(asked, hear) if asked else None,
            group=lambda responses: answer_groups(responses, self.grade_many),
        )
        context = context_of(prompt, self.tokenizer, asked is not None)
        try:
            (decoded,) = decode_many(self.decode, [context], answering)
        except JudgeFailed as error:
            raise Outage(f"the scorer gave no answer: {error.reason}") from error
        chosen = [response for response in decoded.responses if response.share > 0]
        if not any(response.completion.tokens for response in chosen):
            raise UserError("this question leaves the model no room for an answer: it is too long")
        scored = [self._steps(prompt, response.completion, known) for response in chosen]
        return Answer(
            shown=tuple(_shown(one, *pair, decoded) for one, pair in zip(chosen, scored, strict=True)),
            of=len(decoded.responses),
            log=any(found.log for _, found in scored if found),
            scorer=self.valued_by,
            cost=decoded.cost,
            seconds=time.monotonic() - began,
        )

    @property
    def valued_by(self) -> str:
        """The scorer whose values are shown; empty where there is none."""
        shown = self._shown_by(self.scorer)
        return "" if isinstance(shown, NoScorer) else option(shown)

    def _shown_by(self, scorer: StepScorer) -> StepScorer:
        """The scorer that is named; without one the model's own head, where it has one and is in this process."""
        folder = (
            self.model.folder() if isinstance(scorer, NoScorer) and isinstance(self.sampler, LocalSampler) else None
        )
        return ValueHead() if folder is not None and (folder / FILE).is_file() else scorer

    def _steps(
        self, prompt: Prompt, completion: Completion, known: dict[tuple[str, bool], tuple[Beginning, Scored]]
    ) -> tuple[Beginning, Scored | None]:
        """A response by its steps, as the decoder wrote them where it wrote steps, and what is said of them."""
        whole = beginning(completion)
        if found := known.get((whole.text, whole.ended)):
            return found
        if self._score is None or not whole.text:
            return whole, None
        scored = self._score([(prompt.text, whole)])[0]
        if isinstance(scored, JudgeFailed):
            raise Outage(f"the scorer gave no answer: {scored.reason}")
        return whole, scored


def _shown(response: Response, steps: Beginning, scored: Scored | None, decoded: Decoded) -> Shown:
    values: Sequence[float | None] = scored.by_step if scored else [None] * len(steps.steps)
    found = find_answer(response.completion.text)
    same = [one for one in decoded.responses if one.group is not None and one.group == response.group]
    return Shown(
        steps=tuple(map(Step, steps.steps, values)),
        answer=found.text if found else "",
        finish=response.completion.finish,
        share=response.share,
        score=response.score,
        voters=len(same),
    )


def worth(value: float, log: bool) -> float:
    """A value in [0, 1], for its colour: a probability as it is, a logarithm by the logistic function."""
    if log:
        return 1 / (1 + exp(-value)) if value > -700 else 0.0
    return min(1.0, max(0.0, value))


def told(value: float, log: bool) -> str:
    """A value as it is written."""
    return f"{value:+.2f}" if log else f"{value:.2f}"
