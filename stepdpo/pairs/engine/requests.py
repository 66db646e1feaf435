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
from stepdpo.generation.requests import AskJudge, Generate, GradeAnswers, JudgeFailed, Request, ScoreText

__all__ = [
    "BASELINES", "AskJudge", "Generate", "GradeAnswers", "JudgeFailed", "ProblemResult", "Request", "Requests",
    "Result", "ScoreText",
]  # fmt: skip
"""The requests of generation/requests that a method may make stand here too: who writes one imports from one place."""

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
