"""A connection to an OpenAI-compatible server: retries with exponential backoff, a limit on requests at a time, counts.

What is requested is the business of the parts above; what can go wrong on the way is handled here.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from stepdpo.core.errors import Outage, UserError, nearest
from stepdpo.generation.client.config import Server
from stepdpo.generation.client.parsing import json_object, positions_by_model
from stepdpo.generation.client.retry import delay, may_pass, retry_after
from stepdpo.generation.client.transcript import Exchange, costs, redact_key
from stepdpo.runtime.secrets import redact_text

NEEDS_CLIENT = "needs the client: pip install 'stepdpo[openai]'"
LONGEST = 400
"""Characters of a server's own words in an error."""
EVERY = 15.0
"""Seconds between two words about repetitions."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Send = Callable[[], Awaitable[Any]]
Read = Callable[[dict[str, Any]], Result]


class RequestRefused(Exception):
    """The server will not answer this request, however often it is sent."""


class _Retry(Exception):
    """An attempt that failed and may be repeated, perhaps after some seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


Record = Callable[[Exchange], None]


class Client:
    """An open connection. `counts` says what it has cost."""

    def __init__(
        self, spec: Server, part: str, key: str, openai: ModuleType, runner: asyncio.Runner, record: Record | None
    ) -> None:
        self.spec, self.part, self.key, self.record = spec, part, key, record
        self.openai, self.runner = openai, runner
        # Retries and timeouts are ours, so that every attempt is counted and recorded.
        self.connection = openai.AsyncOpenAI(base_url=spec.url, api_key=key or "none", max_retries=0, timeout=None)
        self.model = spec.model or ""
        self.models: list[str] = []
        self.context: int | None = None
        """Positions of the model, where the server says so."""
        self.counts: Counter[str] = Counter()
        # Held through the repetitions too: a server in trouble is not sent more while others wait.
        self.slots = asyncio.Semaphore(spec.concurrency)
        self.looking, self.quiet_until = False, 0.0

    @property
    def provenance(self) -> dict[str, Any]:
        """Where requests went: for the record."""
        return {"url": redact_text(self.spec.url), "model": self.model}

    def each(self, work: Callable[[Item], Coroutine[Any, Any, Result]], items: Sequence[Item]) -> list[Result]:
        """The work on every item, together, in their order. A failure stops the rest."""
        return self.runner.run(_together([work(item) for item in items]))

    async def request(
        self, chat: bool, fields: Mapping[str, Any], extra: Mapping[str, Any], read: Read[Result]
    ) -> Result:
        """Send a request, to the chat or the completions endpoint, until `read` can make something of the reply.

        `extra` are fields that the official client does not know. `read` raises ValueError for a reply that is no
        answer. Raises RequestRefused, and Outage when every repetition failed.
        """
        resource = self.connection.chat.completions if chat else self.connection.completions
        body = {"model": self.model, **fields}

        async def send() -> Any:
            return await resource.with_raw_response.create(**body, extra_body=dict(extra) or None)

        async with self.slots:
            return await self._with_retries(send, read, {**body, **extra}, self.spec.retries)

    def find_model(self, optional: bool) -> None:
        """Learn the model's name and how many positions it has."""
        send: Send = self.connection.models.with_raw_response.list
        self.looking = bool(self.model)
        try:
            entries = self.runner.run(
                self._with_retries(send, positions_by_model, {}, 0 if optional else self.spec.retries)
            )
        except (RequestRefused, Outage) as error:
            # The list is a convenience: where the model is named, a server without one can be worked with.
            if self.model and (optional or isinstance(error, RequestRefused)):
                return
            raise UserError(f"{self.part}: {error}") from None
        finally:
            self.looking = False
        self.models = list(entries)
        if not self.model:
            if len(entries) != 1:
                raise UserError(f"{self.part}.model must be given: the server lists {', '.join(entries) or 'none'}")
            (self.model,) = entries
        self.context = entries.get(self.model)

    async def _with_retries(self, send: Send, read: Read[Result], request: Mapping[str, Any], retries: int) -> Result:
        for attempt in range(retries + 1):
            try:
                return await self._attempt(send, read, request, attempt)
            except _Retry as trouble:
                if attempt == retries:
                    tried = f" (tried {retries + 1} times)" if retries else ""
                    raise Outage(f"{redact_text(self.spec.url)}: {trouble}{tried}") from None
                self._say(str(trouble))
                await asyncio.sleep(delay(attempt, self.spec.backoff, trouble.after, random.random()))
        raise AssertionError("unreachable")

    async def _attempt(self, send: Send, read: Read[Result], request: Mapping[str, Any], attempt: int) -> Result:
        began, reply, error = time.monotonic(), None, ""
        try:
            reply = await self._sent(send)
            return read(reply)
        except ValueError as wrong:
            error = str(wrong)
            raise _Retry(error) from None
        except (_Retry, RequestRefused, Outage, UserError) as wrong:
            error = str(wrong)
            raise
        finally:
            if request:
                self._note(Exchange(request, reply, error, attempt, time.monotonic() - began))

    async def _sent(self, send: Send) -> dict[str, Any]:
        openai = self.openai
        try:
            # Over the whole answer; the client's own timeout begins anew with every byte that arrives.
            async with asyncio.timeout(self.spec.timeout):
                text = (await send()).text
        except TimeoutError:
            raise _Retry(f"no answer within {self.spec.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise self._meaning(error.status_code, error.response.headers, error.message) from None
        except openai.APIConnectionError:
            raise _Retry("no connection") from None
        return json_object(text)

    def _meaning(self, status: int, headers: Mapping[str, str], words: str) -> Exception:
        """What a status other than 2xx comes to. A server's words may hold the key, so those about it are left out."""
        if self.looking and status not in (401, 403):
            return RequestRefused(f"status {status}")  # some have no list of models, or fail to make one; they are up
        if may_pass(status):
            return _Retry(f"status {status}", retry_after(headers.get("retry-after"), time.time()))
        if status in (401, 403):
            held = f"refuses the key in {self.spec.api_key_env}" if self.key else "wants a key"
            return self.error_for_user(f"{redact_text(self.spec.url)} {held} (status {status})")
        if status == 404 and self.model:
            return self.error_for_user(
                f"no model {self.model!r} there, or no such endpoint; {nearest(self.model, self.models)}"
            )
        return RequestRefused(f"status {status}: {self.safe(words)}")

    def error_for_user(self, text: str) -> UserError | Outage:
        """An error for the user to mend; once something has been answered, one that keeps what was made of it."""
        words = f"{self.part}: {text}"
        return Outage(words) if self.counts["requests"] > self.counts["failures"] else UserError(words)

    def _note(self, exchange: Exchange) -> None:
        self.counts.update(costs(exchange.attempt, exchange.error, exchange.reply))
        if self.record:
            self.record(exchange)

    def _say(self, trouble: str) -> None:
        """Tell the user about repetitions, now and then."""
        now = time.monotonic()
        if now >= self.quiet_until:
            self.quiet_until = now + EVERY
            print(f"{self.part}: {trouble}; trying again", flush=True)

    def safe(self, text: str) -> str:
        """Words of others, without the key and not too many of them."""
        return redact_text(redact_key(self.key, text))[:LONGEST]


@contextmanager
def connect(server: Server, part: str, optional: bool = False, record: Record | None = None) -> Iterator[Client]:
    """A connection to a server; `part` is where its settings stand in the configuration.

    `record` hears of every attempt. Raises UserError for a wrong key, a model that cannot be known and, unless
    `optional`, a server that is down.
    """
    openai = _library(part)
    key = os.environ.get(server.api_key_env, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise UserError(f"{part}.api_key_env={server.api_key_env}: what it holds is no key, as it has odd characters")
    with asyncio.Runner() as runner:
        client = Client(server, part, key, openai, runner, record)
        try:
            client.find_model(optional)
            yield client
        finally:
            runner.run(client.connection.close())


async def _together(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # gather lets the others run on after a failure; here they are stopped, and waited for.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _library(part: str) -> ModuleType:
    """The official client, where it is installed."""
    try:
        import openai
    except ImportError:
        raise UserError(f"{part} {NEEDS_CLIENT}") from None
    return openai
