"""The seams: what each kind of part must offer. Everything else is final."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from stepdpo.core.types import (
        Completion,
        Grade,
        Pair,
        Preference,
        Problem,
        Prompt,
        Sampling,
        Turn,
    )
    from stepdpo.tokens.batch import LossOutput, PairScores, TreeBatch


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that templates and tokenisation rely on."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: str | None

    def __call__(self, text: list[str], **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


class Template(Protocol):
    """Question (and turns after it) -> the text a model reads."""

    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt: ...


class Level(Protocol):
    """Preference -> Pair: decides what is scored, and nothing after it knows about steps."""

    def __call__(self, preference: Preference) -> Pair: ...


class Loss(Protocol):
    """PairScores -> LossOutput."""

    needs: ClassVar[frozenset[str]]
    """What must be computed for it, of {"rejected", "reference", "kl"}."""

    def __call__(self, scores: PairScores) -> LossOutput: ...


class Sampler(Protocol):
    """Text generation. One list of `params.n` completions a prompt, in the order of the prompts.

    `streams` tells apart the random numbers of equal prompts; without it, how often a prompt has come before does.
    """

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]: ...


class SamplerSpec(Protocol):
    """How to open a sampler on a model folder or hub name."""

    def open(self, model: str) -> AbstractContextManager[Sampler]: ...


class Grader(Protocol):
    """Response against gold answers. Never raises on any text and answers in bounded time."""

    def grade(self, response: str, problem: Problem) -> Grade: ...


class PairSource(Protocol):
    """Problem -> preferences, as a generator: it yields what it asks for, is sent the answer, and returns `Made`.

    One that needs "trees" asks no model: it offers `problems()`, a stream of its own.
    """

    needs: ClassVar[frozenset[str]]
    """What must be at hand, of {"checker", "judge", "trees"}."""

    def __call__(self, problem: Problem, tools: Any) -> Any: ...


class Judge(Protocol):
    """(Problem, Solution) -> the first wrong step, as a generator like PairSource that returns a `Verdict`."""

    needs: ClassVar[frozenset[str]]

    def __call__(self, problem: Problem, solution: Any, tools: Any) -> Any: ...


class Crew(Protocol):
    """Who works on the problems: opened on a bench (pairs/engine/worker), it finishes groups of them, in any order."""

    def open(self, bench: Any) -> AbstractContextManager[Any]: ...


class Decoder(Protocol):
    """Prompts -> one answer each."""

    def __call__(self, prompts: Sequence[str], sampler: Sampler) -> list[Completion]: ...


class Checker(Protocol):
    """Exact step checker of a task: index of the first wrong step from 0, or None."""

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None: ...


class Engine(Protocol):
    """A training engine: the only thing that knows processes and devices."""

    rank: int
    world: int
    model: Any
    numbers: str

    def score(self, batch: TreeBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
    def second(self, build: Any) -> Any: ...
    def backward(self, loss: Tensor, last: bool) -> None: ...
    def step(self, lr: float) -> float: ...
    def total(self, values: Tensor) -> Tensor: ...
    def barrier(self) -> None: ...
    def weights(self) -> dict[str, Tensor]: ...
    def save_state(self, folder: Path) -> None: ...
    def load_state(self, folder: Path) -> None: ...
