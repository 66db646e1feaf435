"""A judge as a scorer of beginnings: 1 for every step before the first wrong one, 0 from there on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Sampler
from stepdpo.core.ranges import at_least, positive
from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, Problem, Sampling
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.generation.answering import Answering, ScoreAll, in_rounds
from stepdpo.generation.requests import Beginning, Generate, GradeAnswers, JudgeFailed, Request, Scored
from stepdpo.generation.step_scorer import Aggregate, Asked
from stepdpo.models.load import ModelSpec
from stepdpo.pairs.engine.context import Context, Judge, rates_beginnings
from stepdpo.pairs.judges.exact import Exact
from stepdpo.pairs.solutions import Solution

Verdicts = Generator[Request, Any, tuple[float, ...]]


@dataclass(frozen=True)
class JudgeScorer:
    """The score of a step is what a judge says of its beginning: 1 or 0 by its verdict.

    A judge that rates beginnings (roll-outs) is asked for its rate where a response has not ended: the share that comes
    right from there. Such a judge, and the exact one, look at the truth: they show what a perfect scorer is worth.
    """

    judge: Judge = field(default_factory=Exact)
    aggregate: Aggregate = Aggregate.last
    gold: bool = False
    """Show a judge's model the gold answer and working of the problem, as it sees them when pairs are made."""
    temperature: float = 0.8
    """Of roll-outs, unless the judge has one of its own."""
    max_tokens: int = 512
    """Of a roll-out, at most."""
    seed: int = 0

    log: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.5
    """A verdict is 0 or 1."""

    def __post_init__(self) -> None:
        at_least(1, max_tokens=self.max_tokens)
        at_least(0, seed=self.seed)
        positive(temperature=self.temperature)

    @property
    def package(self) -> tuple[str, str]:
        """What the judge imports once it is opened, and what is said where that is missing."""
        return getattr(self.judge, "package", ("", ""))

    def knowing(self, asked: Asked) -> KnowingJudge:
        """The same, ready for these problems. UserError for problems that the judge can tell nothing of."""
        if "checker" in self.judge.needs and asked.checker is None:
            raise UserError(
                "scorer=judge: this task has no exact step checker, which judge=exact needs; try judge=openai"
            )
        if rates_beginnings(self.judge) and not all(problem.answers for problem in asked.problems.values()):
            raise UserError("scorer=judge: these problems have no gold answers, which roll-outs are held against")
        return KnowingJudge(self, asked)

    def open(self, model: ModelSpec, sampler: Sampler) -> AbstractContextManager[ScoreAll]:
        """UserError: it is opened once the problems are known."""
        raise UserError("scorer=judge: judges problems, and here are only prompts")

    def must_fit(self, model: ModelSpec) -> None:
        """Every model does."""


@dataclass(frozen=True)
class KnowingJudge:
    """The scorer, and what is asked."""

    spec: JudgeScorer
    asked: Asked

    log: ClassVar[bool] = False

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        """Start the graders and connect to the judge's model, where it has one; roll-outs are the sampler's."""
        spec, asked = self.spec, self.asked
        sampling = Sampling(1, spec.temperature, 1.0, spec.max_tokens, (), spec.seed)
        context = Context(asked.template, asked.tokenizer, sampling, asked.checker, spec.judge)
        with graders() as grade_many, self._model_of_judge() as ask_judge:
            answering = Answering(sampler, sampling, lambda items: grade_many(items, Strict()), ask_judge)
            yield _Scoring(spec, asked.problems, context, answering)

    def must_fit(self, model: ModelSpec) -> None:
        """Every model does."""

    def of_worker(self, name: str) -> KnowingJudge:
        """The same with a folder of its own: two processes that append to one transcript would tear its lines."""
        return replace(self, asked=replace(self.asked, folder=self.asked.folder / "workers" / name))

    def _model_of_judge(self) -> AbstractContextManager[Any]:
        judge: Any = self.spec.judge
        if not hasattr(judge, "open"):
            return nullcontext()
        self.asked.folder.mkdir(parents=True, exist_ok=True)  # the transcript is kept there
        opened: AbstractContextManager[Any] = judge.open(self.asked.folder)
        return opened


class _Scoring:
    """What scores beginnings; `provenance` says who was asked."""

    def __init__(
        self, spec: JudgeScorer, problems: Mapping[str, Problem], context: Context, answering: Answering
    ) -> None:
        self.spec, self.problems, self.context, self.answering = spec, problems, context, answering
        self.rates: dict[tuple[str, str], float] = {}
        """Of beginnings that were rolled out from: searches come back to them with every step."""

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(getattr(self.answering.ask_judge, "provenance", {}))

    def __call__(self, items: Sequence[tuple[str, Beginning]]) -> list[Scored | JudgeFailed]:
        live = [
            _Live(problem := self.problems[prompt], self._verdict(problem, beginning)) for prompt, beginning in items
        ]
        for _ in in_rounds(live, lambda some: self.answering.answer([(one.problem, one.wanted) for one in some])):
            pass
        return [
            one.result
            if isinstance(one.result, JudgeFailed)
            else Scored(self.spec.aggregate(one.result, log=False), one.result, False, one.generated)
            for one in live
        ]

    def _verdict(self, problem: Problem, beginning: Beginning) -> Verdicts:
        """One number a step."""
        judge = self.spec.judge
        # Taken for right unless it is known to be wrong: no judge is told that there is a mistake.
        solution = Solution("", *_read(beginning, self.context.prompt(problem).joint), correct=True)
        if rates_beginnings(judge):
            if not beginning.ended:
                return (yield from self._rates(problem, solution))
            (grade,) = yield GradeAnswers((solution.text,))
            solution = replace(solution, correct=grade.verdict == CORRECT)
        elif not (self.spec.gold or "checker" in judge.needs):
            problem = replace(problem, answers=(), solution="")
        verdict = yield from judge(problem, solution, self.context)
        size = len(solution.steps)
        right = size if verdict.error is None else verdict.error
        return (1.0,) * right + (0.0,) * (size - right)

    def _rates(self, problem: Problem, solution: Solution) -> Verdicts:
        judge: Any = self.spec.judge
        found = []
        for number in range(1, len(solution.steps) + 1):
            prefix = (solution.head + "".join(solution.steps[:number])).removesuffix("\n")
            key = problem.id, prefix
            if key not in self.rates:
                self.rates[key] = yield from judge.rate(problem, prefix, self.context)
            found.append(self.rates[key])
        return tuple(found)


def _read(beginning: Beginning, joint: str) -> tuple[str, tuple[str, ...]]:
    """(head, steps) of a beginning, as a judge reads solutions: as many steps as it has."""
    head, steps = split_steps(beginning.text.removeprefix(joint))
    if len(steps) == len(beginning.steps):
        return head, tuple(steps)
    first, *rest = beginning.steps  # of a search whose steps have no labels
    return "", (first.removeprefix(joint), *rest)


@dataclass
class _Live:
    """A beginning that is judged."""

    problem: Problem
    requests: Verdicts
    request: Request | None = None
    result: Any = None
    generated: int = 0

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def wanted(self) -> Request:
        assert self.request is not None, "asked for before it is started"
        return self.request

    def advance(self, reply: Any) -> None:
        """Send the answer, and learn the next request, or what comes of it."""
        failure = isinstance(reply, JudgeFailed)
        if isinstance(self.request, Generate):
            self.generated += sum(completion.tokens for some in reply for completion in some)
        try:
            self.request = self.requests.throw(reply) if failure else self.requests.send(reply)
        except StopIteration as end:
            self.result = end.value
        except JudgeFailed as error:
            self.result = error
