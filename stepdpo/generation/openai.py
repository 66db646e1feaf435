"""Generation by a running server (vLLM, SGLang, TGI, `transformers serve`), through the official OpenAI client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.client.client import NEEDS_CLIENT, Client, RequestRefused, connect
from stepdpo.generation.client.config import Server
from stepdpo.generation.openai_responses import TOO_LONG, completions, prompt_logps
from stepdpo.generation.seeding import check_greedy, numbered_seed, seeds
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.progress import Progress
from stepdpo.tokens.tokenization import encode


class Endpoint(Enum):
    completions = "completions"
    """The model goes on from the prompt as it is: the template is ours."""
    chat = "chat"
    """The prompt is sent as one message of a user, around which the server puts its own template."""


class Form(Enum):
    text = "text"
    ids = "ids"
    """Tokens by our own tokenizer, with a beginning-of-text token where it has one, as in training."""


@dataclass(frozen=True)
class OpenAISampler:
    """Requests to a server; the model of the configuration gives the tokenizer only."""

    server: Server = field(default_factory=Server)
    endpoint: Endpoint = Endpoint.completions
    prompt: Form = Form.text
    """How prompts are sent to `completions`; not every server takes token ids."""
    per_request: int | None = None
    """Most responses asked for in one request; null: all of a prompt's. A server that gives fewer is asked again."""
    seeded: bool = True
    """Send a seed with every request."""
    context: int | None = None
    """Tokens the server's model has room for, prompt and response together; null: what the server says."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request (`top_k`, `min_p`, ...)."""
    progress: bool = True

    package: ClassVar[tuple[str, str]] = ("openai", f"sampler.server {NEEDS_CLIENT}")
    """What is imported once it is opened, and what is said where that is missing."""
    devices: ClassVar[None] = None
    """It computes nothing here."""

    def __post_init__(self) -> None:
        at_least(1, per_request=self.per_request, context=self.context)

    @contextmanager
    def open(self, model: ModelSpec) -> Iterator[ServerSampler]:
        """Connect to the server; UserError where none answers."""
        with connect(self.server, "sampler.server") as client:
            yield ServerSampler(client, self, model)


class ServerSampler:
    """An open connection to a server that samples."""

    def __init__(self, client: Client, spec: OpenAISampler, model: ModelSpec) -> None:
        self.client, self.spec, self.model = client, spec, model
        self.chat = spec.endpoint is Endpoint.chat
        self.context = None if self.chat else spec.context or client.context

    @cached_property
    def tokenizer(self) -> Any:
        return self.model.tokenizer()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result depends on besides the prompts, and what it has cost: for the record."""
        return {
            "sampler": "openai",
            **self.client.provenance,
            "endpoint": self.spec.endpoint.value,
            "requests": dict(self.client.counts),
            "versions": {"openai": version("openai")},
        }

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        """`params.n` completions a prompt, in the order of the prompts.

        Every prompt has seeds of its own; whether equal seeds give equal texts is up to the server. A prompt that
        leaves no room is answered with empty completions that end by `length`.
        """
        check_greedy(params)
        with Progress("response", len(prompts) * params.n, enabled=self.spec.progress) as progress:

            async def one(item: tuple[str, bytes, Sequence[int] | None]) -> list[Completion]:
                found = await self._complete(*item, params)
                progress.advance(len(found))
                return found

            items = zip(prompts, seeds(prompts, params.seed, streams), self._ids(prompts), strict=True)
            done = self.client.each(one, list(items))
        progress.summary(sum(completion.tokens for found in done for completion in found))
        return done

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Nats of each continuation after its prompt, under the model itself, by echoed prompts."""
        if self.chat:
            raise self.client.error_for_user("log-probabilities of given texts need endpoint=completions")
        texts = [prompt + more for prompt, more in zip(prompts, continuations, strict=True)]

        async def one(item: tuple[str, tuple[list[int], list[int]]]) -> float:
            prompt, (ids, ends) = item
            first = next((i for i, end in enumerate(ends) if end > len(prompt)), len(ids))
            # `echo` gives the log-probabilities of the prompt; the one token written after it is thrown away.
            request = {"prompt": ids, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
            try:
                logps = await self._request(request, lambda reply: prompt_logps(reply, len(ids)))
            except RequestRefused as error:
                raise self.client.error_for_user(f"log-probabilities of given texts: {error}") from None
            return float(sum(number or 0.0 for number in logps[first:]))

        return self.client.each(one, list(zip(prompts, encode(texts, self.tokenizer), strict=True)))

    def _ids(self, prompts: Sequence[str]) -> Iterator[Sequence[int] | None]:
        """Token ids of the prompts, where they are needed."""
        if self.context is None and (self.chat or self.spec.prompt is Form.text):
            return iter([None] * len(prompts))
        return (ids for ids, _ in encode(prompts, self.tokenizer))

    async def _complete(
        self, prompt: str, seed: bytes, ids: Sequence[int] | None, params: Sampling
    ) -> list[Completion]:
        nothing = [Completion("", 0, "length")] * params.n
        room = params.max_tokens
        if self.context is not None and ids is not None:
            room = min(room, self.context - len(ids))
        if room < 1:
            self.client.counts["prompts too long"] += 1
            return nothing
        found: list[Completion] = []
        # A server may give fewer than it was asked for. The seed counts from what is there, so that no two requests for
        # one prompt write the same texts.
        while len(found) < params.n:
            wanted = min(params.n - len(found), self.spec.per_request or params.n)
            request = self._fields(prompt, ids, params, room, wanted, numbered_seed(seed, len(found)))
            try:
                some = await self._request(request, lambda reply: completions(reply, params.stop))
            except RequestRefused as error:
                # Only the server knows how it counts tokens, so the last word on what is too long is its own.
                if not TOO_LONG.search(str(error)):
                    raise self.client.error_for_user(str(error)) from None
                self.client.counts["prompts too long"] += 1
                return nothing
            if params.logps and any(completion.logp is None for completion in some):
                raise self.client.error_for_user("the server gives no log-probabilities, which are asked for here")
            found += some[:wanted]
        return found

    async def _request(self, request: Mapping[str, Any], read: Any) -> Any:
        return await self.client.request(self.chat, request, self.spec.extra, read)

    def _fields(
        self, prompt: str, ids: Sequence[int] | None, params: Sampling, room: int, n: int, seed: int
    ) -> dict[str, Any]:
        """The fields of one request; those that say nothing are left out, as not every server takes all."""
        request: dict[str, Any] = {"max_tokens": room, "temperature": params.temperature}
        if self.chat:
            request["messages"] = [{"role": "user", "content": prompt}]
        else:
            request["prompt"] = list(ids) if ids is not None and self.spec.prompt is Form.ids else prompt
        if n > 1:
            request["n"] = n
        if params.top_p < 1:
            request["top_p"] = params.top_p
        if params.stop:
            request["stop"] = list(params.stop)
        if self.spec.seeded and params.temperature:
            request["seed"] = seed
        if params.logps:
            request["logprobs"] = True if self.chat else 1
        return request
