"""Generation in this process with transformers: large sorted batches, greedy or sampled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.decode_loop import GeneratedTokens, StopConditions, Watch, generate
from stepdpo.generation.prefix_sharing import register
from stepdpo.generation.score_text import score_texts, scored_texts
from stepdpo.generation.seeding import check_greedy
from stepdpo.generation.seeding import seeds as seeds_of
from stepdpo.generation.stop_strings import StopStrings, eos_ids, response_text
from stepdpo.models.integrity import refuse_unknown_tokens
from stepdpo.models.load import DTYPES, ModelSpec
from stepdpo.runtime.progress import Progress
from stepdpo.tokens.tokenization import encode

CPU_TOKENS, GPU_TOKENS = 65536, 262144
"""Default token budgets of a batch."""


class Dtype(Enum):
    auto = "auto"
    """float32 on CPU, bfloat16 on a GPU."""
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class TransformersSampler:
    """Opens a model in this process, on one device."""

    batch_tokens: int | None = None
    """Most tokens (prompts and room for the responses) held at a time; null suits the device. With float32 it changes
    results by rounding only. On a GPU a batch that does not fit is split."""
    dtype: Dtype = Dtype.auto
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; auto takes a GPU where there is one."""
    progress: bool = True
    """Show how far it has come: a bar on a terminal, a line every so often elsewhere."""

    def __post_init__(self) -> None:
        at_least(1, batch_tokens=self.batch_tokens)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or one such as cuda:1, got {self.device!r}")

    @property
    def devices(self) -> int:
        """GPUs that it takes of a machine that has any."""
        return 0 if self.device == "cpu" else 1

    @contextmanager
    def open(self, model: ModelSpec) -> Iterator[LocalSampler]:
        """Load the model and sample from it."""
        device = torch.device(self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"sampler.device={self.device}: no GPU that torch can use is here")
        name = self.dtype.value
        if self.dtype is Dtype.auto:
            name = "float32" if device.type == "cpu" else "bfloat16"
        budget = self.batch_tokens or (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS)
        loaded, tokenizer = _load(model, DTYPES[name]), model.tokenizer()
        refuse_unknown_tokens(tokenizer, loaded, model.source)
        yield LocalSampler(loaded.to(device).eval(), tokenizer, budget, self.progress)


def _load(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """The model with the attention that shares prompts, or with torch's where it has one of its own."""
    try:
        return spec.model(register(), dtype)
    except UserError as error:
        # Caused by a KeyError where the model has a list of attentions of its own, in which ours is not.
        if not isinstance(error.__cause__, KeyError):
            raise
        return spec.model("sdpa", dtype)


class LocalSampler:
    """A loaded model.

    The same prompt and seed give the same responses whatever else is in the batch, rounding aside: every response
    draws from a random stream of its own.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int, progress: bool = False) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.batch_tokens, self.progress = batch_tokens, progress
        self.eos = eos_ids(model, tokenizer)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result depends on besides the prompts: for the record."""
        return {
            "sampler": "transformers",
            "device": self.model.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "batch_tokens": self.batch_tokens,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def sample(
        self,
        prompts: Sequence[str],
        params: Sampling,
        streams: Sequence[int] | None = None,
        watch: Watch | None = None,
    ) -> list[list[Completion]]:
        """`params.n` completions a prompt, in the order of the prompts; `watch` hears the tokens of each batch."""
        check_greedy(params)
        ids = [tokens for tokens, _ in encode(prompts, self.tokenizer)]
        seeds = list(seeds_of(prompts, params.seed, streams))
        nothing = Completion("", 0, "length")
        done = [[nothing] * params.n for _ in prompts]
        with Progress("response", len(prompts) * params.n, enabled=self.progress) as progress:
            for batch in self._batches(ids, params):
                for index, responses in self._run(batch, ids, seeds, params, progress.advance, watch):
                    done[index] = [self._complete(ids[index], written, params) for written in responses]
        progress.summary(sum(completion.tokens for completions in done for completion in completions))
        return done

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Nats of each continuation after its prompt, at temperature 1; minus infinity where it has no room."""
        return score_texts(self.model, scored_texts(prompts, continuations, self.tokenizer), self.batch_tokens)

    def _batches(self, ids: Sequence[Sequence[int]], params: Sampling) -> Iterator[list[int]]:
        """Indices of the prompts, the longest first, as many at a time as the budget holds.

        Prompts that leave the model no position to write to are left out.
        """
        batch: list[int] = []
        longest = 0
        # The longest first: prompts of like length are padded least, and a budget that is too large fails at once.
        for index in sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i)):
            room = self._room(ids[index], params)
            if room < 1:
                continue
            longest = max(longest, len(ids[index]) + room)
            if batch and (len(batch) + 1) * params.n * longest > self.batch_tokens:
                yield batch
                batch, longest = [], len(ids[index]) + room
            batch.append(index)
        if batch:
            yield batch

    def _run(
        self,
        batch: list[int],
        ids: Sequence[Sequence[int]],
        seeds: Sequence[bytes],
        params: Sampling,
        advance: Callable[[int], None],
        watch: Watch | None = None,
    ) -> Iterator[tuple[int, list[GeneratedTokens]]]:
        """The responses to each prompt of a batch; a batch too large for the GPU is halved."""
        stops = StopStrings(params.stop, self.tokenizer)
        rooms = tuple(self._room(ids[i], params) for i in batch)
        uniforms = _uniforms([seeds[i] for i in batch], params, max(rooms)) if params.temperature else None
        ends = StopConditions(self.eos, rooms, stops.found if params.stop else None)
        try:
            rows = generate(self.model, [ids[i] for i in batch], params, ends, uniforms, advance, watch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            rows = []
        # Outside the `except`: within it the traceback still holds the tensors of the failed attempt.
        if rows:
            yield from ((i, rows[at * params.n : (at + 1) * params.n]) for at, i in enumerate(batch))
            return
        torch.cuda.empty_cache()
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            yield from self._run(half, ids, seeds, params, advance, watch)

    def _room(self, ids: Sequence[int], params: Sampling) -> int:
        """How many tokens may follow a prompt: never more than the model has positions for."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        return min(params.max_tokens, context - len(ids)) if context else params.max_tokens

    def _complete(self, prompt: Sequence[int], written: GeneratedTokens, params: Sampling) -> Completion:
        """Text, tokens and log-probability: of a stopped response up to the token that ends the stop string."""
        tokens = written.tokens
        ended = tokens[-1] in self.eos
        text = response_text(prompt, tokens[:-1] if ended else tokens, self.tokenizer)
        count, finish, stop = len(tokens), "eos" if ended else "length", ""
        if stops := [(at, -len(stop), stop) for stop in params.stop if stop and (at := text.find(stop)) >= 0]:
            at, _, stop = min(stops)  # the first in the text, of several there the longest
            text, finish = text[:at], "stop"
            count = StopStrings(params.stop, self.tokenizer).tokens_until(tokens)
        return Completion(text, count, finish, fsum(written.logps[:count]) if params.logps else None, stop)


def _uniforms(seeds: Sequence[bytes], params: Sampling, steps: int) -> npt.NDArray[np.float32]:
    """Random numbers of every response, a row each; a longer row begins with the shorter one."""
    # Philox is counter-based: a stream of its own for every key, so thousands cost no more than one. Drawn by numpy
    # on the CPU, so that a GPU samples what a CPU does, and a smaller batch what a larger one does.
    rows = [
        np.random.Generator(np.random.Philox(key=int.from_bytes(seed + number.to_bytes(8, "big"), "big")))
        .random(steps, dtype=np.float32)
        for seed in seeds
        for number in range(params.n)
    ]  # fmt: skip
    return np.stack(rows)
