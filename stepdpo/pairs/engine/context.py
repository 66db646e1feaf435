"""The seams of this room: what a method of making pairs and a judge must offer, and the context both are given."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeGuard

from stepdpo.core.protocols import Checker, Template, Tokenizer
from stepdpo.core.types import Problem, Prompt, Sampling, Turn
from stepdpo.pairs.engine.requests import Request, Requests
from stepdpo.pairs.judges.verdict import JudgeRequests
from stepdpo.pairs.solutions import Solution
from stepdpo.tokens.tokenization import question_prompt


class PairMethod(Protocol):
    """Problem -> preferences, as a generator: it yields requests, is sent their answers, and returns a `Result`."""

    needs: ClassVar[frozenset[str]]
    """What must be at hand, of {"checker", "judge", "trees", "pairs"}; with either of the last a `FileMethod`."""

    def __call__(self, problem: Problem, context: Context) -> Requests: ...


class FileMethod(PairMethod, Protocol):
    """Works on trees or pairs that exist already: it requests nothing of a model, and has problems of its own."""

    @property
    def path(self) -> str: ...
    def problems(self) -> Iterator[Problem]: ...


def needs_file(method: PairMethod) -> TypeGuard[FileMethod]:
    """Whether a method works on what exists already, so that no sampler is opened and it is given no Context."""
    return not method.needs.isdisjoint({"trees", "pairs"})


class Judge(Protocol):
    """(Problem, Solution) -> the first wrong step: a generator like a PairMethod, that returns a `Verdict`.

    One with a model of its own offers `open(folder)` as well: a context manager that yields what answers `AskJudge`.
    """

    needs: ClassVar[frozenset[str]]

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests: ...


class BeginningRater(Judge, Protocol):
    """A judge by outcomes: of a beginning that has not ended it tells how often it comes right."""

    def rate(self, problem: Problem, prefix: str, context: Context) -> Generator[Request, Any, float]:
        """The share in [0, 1] that comes right after a prefix of a solution."""
        ...


def rates_beginnings(judge: Judge) -> TypeGuard[BeginningRater]:
    """Whether a judge goes by outcomes."""
    return hasattr(judge, "rate")


@dataclass(frozen=True)
class Context:
    """Given to every PairMethod and Judge. Models are no part of it: they are requested, not called (requests.py)."""

    template: Template
    tokenizer: Tokenizer
    sampling: Sampling
    """How solutions are sampled unless a request says otherwise; `n` is the number a problem."""
    checker: Checker | None = None
    """Exact step checker of the task, where it has one."""
    judge: Judge | None = None
    """Finds the first wrong step."""

    def prompt(self, problem: Problem, history: Sequence[Turn] = ()) -> Prompt:
        """The problem as the model reads it; RowError where it cannot be written so, which ends this problem alone."""
        return question_prompt(self.template, problem.question, history, self.tokenizer)
