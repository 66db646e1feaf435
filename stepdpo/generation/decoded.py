"""The seam of decoders, and what one is given and returns: an answer to one problem, with what it cost."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from stepdpo.core.types import Completion, Prompt
from stepdpo.generation.requests import Request


@dataclass(frozen=True, slots=True)
class Response:
    """One whole response, of the several that a decoder may give."""

    completion: Completion
    share: float = 1.0
    """How much of the answer it is: the shares of a problem's responses sum to 1. The one that was chosen has 1; of n
    samples that stand for themselves each has 1/n; where a vote ends in a tie of two answers, one response of each has
    1/2."""
    score: float | None = None
    """What the scorer says of it, where there is one."""
    group: int | None = None
    """The number of its final answer, one for equal answers of a problem; None where it has none, or nobody asked."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one problem took."""

    generated: int = 0
    """Tokens generated, those of dropped branches too."""
    scored: int = 0
    """Tokens that models read for the scorer, a prompt as often as it was read."""
    calls: int = 0
    """Requests to a model, one after another; those of many problems share a batch."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder came to for one problem."""

    responses: tuple[Response, ...]
    """At least one."""
    cost: Cost

    @property
    def answer(self) -> Completion:
        """The response to show: the one with the largest share, the first of equal ones."""
        return max(self.responses, key=lambda response: response.share).completion


@dataclass(frozen=True)
class DecodeContext:
    """Given to every decoder. Models are no part of it: they are requested, not called (requests.py)."""

    prompt: Prompt
    """What the model reads before it answers."""
    count: Callable[[str], int]
    """How many tokens a text takes after the prompt."""
    scored: bool = False
    """Whether there is a scorer, which answers `ScoreSteps`."""


Decoding = Generator[Request, Any, tuple[Response, ...]]


class Decoder(Protocol):
    """Prompt -> an answer, as a generator: it yields requests, is sent their answers, and returns the responses."""

    needs: ClassVar[frozenset[str]]
    """What must be at hand, of {"scorer", "answers"}: something that scores beginnings, final answers compared."""
    takes: ClassVar[frozenset[str]]
    """What is made use of where it is at hand: {"scorer"}, or nothing."""

    def __call__(self, context: DecodeContext) -> Decoding: ...
