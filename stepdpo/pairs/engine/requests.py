"""What a method of making pairs requests for one problem, and what it returns.

A method is a generator: it yields a request, is sent the answer, and ends by returning a `Result`. It never waits for
a model itself, so that many problems can be worked on at once and every call to a model is a full batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.types import Preference

# Requests are frozen values: equal ones are one key of the SampleCache, and a request decides its answer, as its random
# streams follow from the prompts, `again` and the seed. Batches, workers and resumed runs thus have no say in results.


@dataclass(frozen=True, slots=True)
class Generate:
    """Continuations of each prompt; answered with a list of `n` Completions a prompt."""

    prompts: tuple[str, ...]
    n: int
    again: int = 0
    """How often these prompts were requested before; another number is another random stream, a fresh sample."""
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
    """Log-probabilities of texts that the model need not have written; answered with nats a continuation."""

    prompts: tuple[str, ...]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskJudge:
    """One message to the judge's model; answered with its reply. JudgeFailed is thrown where none came."""

    message: str


Request = Generate | GradeAnswers | ScoreText | AskJudge


class JudgeFailed(Exception):
    """A judge did not reply, or its reply could not be parsed."""

    def __init__(self, reason: str, reply: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """In a few words that many problems share, as outcomes are counted by them."""
        self.reply = reply
        """The last one, if any."""


BASELINES: Mapping[str, tuple[str, ...]] = {
    "instance_pairs": ("samples",),
    "right_solutions": ("samples",),
    "verified_solutions": ("samples",),
    "searched_solutions": ("samples", "search"),
    "continuations": ("samples", "search"),
    "more_right_solutions": ("samples", "extra samples"),
}
"""Rows for other methods that a run may write beside its preferences, a file each, and whose tokens they cost."""


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
    unusable: str = ""
    """Input that cannot be used and will be no better next time: kept in quarantine.jsonl, and never tried again."""
    baselines: Mapping[str, tuple[Preference, ...]] = field(default_factory=dict)
    """Rows for other methods from the same samples, by the names in `BASELINES`."""


Requests = Generator[Request, Any, Result]


@dataclass(frozen=True)
class ProblemResult:
    """The result of one problem, with what it cost."""

    problem: str
    """Its id."""
    result: Result
    tokens: int = 0
    """Generated for it."""
    samples: int = 0
    judge_reply: str = ""
    """The judge's last reply where that could not be parsed: kept in quarantine.jsonl."""
    failed: bool = False
    """Whether the judge failed, so that resume=true tries the problem again."""
    graded: int = 0
    """Responses whose final answers were graded."""
    right: int = 0
    """Those among them with the right answer."""
