"""The seams of strings: what each kind of part must offer. Everything else is final.

Seams of other records stand beside those: `Loss` in tokens/batch, `Decoder` in generation/decoded, `Engine` in
training/engine/settings, `PairMethod` and `Judge` in pairs/engine/context, and so on; docs/architecture.md lists them
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stepdpo.core.types import Completion, Grade, MistakeCount, Pair, Preference, Problem, Prompt, Sampling, Turn


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that templates and tokenisation rely on."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: str | None

    def __call__(self, text: list[str], **options: Any) -> Any: ...
    def get_chat_template(self) -> str: ...
    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


class Template(Protocol):
    """Question (and turns after it) -> the text a model reads."""

    @property
    def name(self) -> str: ...
    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt: ...


class Level(Protocol):
    """Preference -> Pair: decides what is scored, and nothing after it knows about steps."""

    def __call__(self, preference: Preference) -> Pair: ...


class Sampler(Protocol):
    """Text generation. One list of `params.n` completions a prompt, in the order of the prompts.

    `streams` tells apart the random numbers of equal prompts; without it, how often a prompt has come before does.
    """

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]: ...


class SamplerSpec(Protocol):
    """How to open a sampler on a model, which is a `ModelSpec` of models/load.

    It may say `devices`, how many GPUs it takes of a machine that has any: 0 for none, None for one that asks a server,
    and 1 where it says nothing.
    """

    def open(self, model: Any) -> AbstractContextManager[Sampler]: ...


class Grader(Protocol):
    """Response against gold answers. Never raises on any text and answers in bounded time."""

    def grade(self, response: str, problem: Problem) -> Grade: ...


class Checker(Protocol):
    """Exact step checker of a task: index of the first wrong step from 0, or None."""

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None: ...


@runtime_checkable
class CountsMistakes(Protocol):
    """What a checker may offer besides: which kinds of mistakes a response makes, and where it could have made them."""

    def mistakes(self, problem: Problem, response: str) -> Mapping[str, MistakeCount]:
        """A count for every kind, whether made or not; nothing for a problem whose mistakes have no kinds."""
        ...


class Tracker(Protocol):
    """Where metrics go."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an optimizer step down, by name; a failure must not stop the training."""
        ...


class TrackerSpec(Protocol):
    """How to open a tracker for a run folder."""

    def open(
        self, folder: Path, name: str, config: Mapping[str, Any], resumed: int | None = None
    ) -> AbstractContextManager[Tracker]:
        """`resumed`: the step that a run goes on from, after which nothing is logged yet; None for a new run."""
        ...
