"""What a way of making pairs asks for, one problem at a time, and what it returns.

A source is a generator: it yields an ask, is sent the answer, and ends by returning `Result`. It never waits for a
model itself, so that many problems can be worked on at once and every call to a model is a full batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.types import Preference


@dataclass(frozen=True, slots=True)
class Generate:
    """Continuations of each prompt; answered with a list of `n` Completions a prompt."""

    prompts: tuple[str, ...]
    n: int
    again: int = 0
    """How many times these prompts were asked for before: fresh continuations are different ones."""
    temperature: float | None = None
    """None for the run's own, as below."""
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logps: bool = False


@dataclass(frozen=True, slots=True)
class GradeAnswers:
    """Whole responses to the problem; answered with a Grade each, by their final answers."""

    responses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoreText:
    """What the model thinks of texts it need not have written; answered with nats a continuation."""

    prompts: tuple[str, ...]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskJudge:
    """One message to the judge's model; answered with its reply. Unanswered is thrown where none came."""

    message: str


Request = Generate | GradeAnswers | ScoreText | AskJudge


class JudgeFailed(Exception):
    """A judge did not answer, or nothing that could be understood."""

    def __init__(self, reason: str, answer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """In a few words that many problems share."""
        self.answer = answer
        """What was said, if anything."""


@dataclass(frozen=True)
class Result:
    """What came of one problem."""

    preferences: tuple[Preference, ...] = ()
    outcome: str = "pairs"
    """`pairs`, or in a few words why there are none."""
    counts: Mapping[str, int] = field(default_factory=Counter)
    """How much came out of each stage; summed over problems and printed."""
    tree: Mapping[str, Any] | None = None
    """What was searched, as a row of trees.jsonl."""
    unread: str = ""
    """What could not be understood and will be no better next time: kept in quarantine.jsonl."""


Requests = Generator[Request, Any, Result]


@dataclass(frozen=True)
class ProblemResult:
    """One problem done, with what it cost."""

    problem: str
    """Its id."""
    result: Result
    tokens: int = 0
    """Generated for it."""
    samples: int = 0
    quarantined: str = ""
    """The judge's last words where it could not be understood; the problem is tried again by resume=true."""
    failed: bool = False
    """Whether the problem is to be tried again."""
    graded: int = 0
    """Responses whose answers were looked at."""
    right: int = 0
    """Those among them with the right answer."""
