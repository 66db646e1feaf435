"""Everything said to a server and by it, a line an attempt, without the key; and what it has cost."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import encode
from stepdpo.runtime.secrets import HIDDEN, SHORTEST


@dataclass(frozen=True, slots=True)
class Exchange:
    """One attempt: what was sent, and what came back."""

    request: Mapping[str, Any]
    reply: Mapping[str, Any] | None
    error: str
    """What was wrong; empty for a good reply."""
    attempt: int
    """From 0."""
    seconds: float


def costs(attempt: int, error: str, reply: Mapping[str, Any] | None) -> dict[str, int]:
    """What one attempt adds to the counts."""
    usage = reply.get("usage") if reply else None
    told = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")} if isinstance(usage, dict) else {}
    tokens = {name: number for name, number in told.items() if isinstance(number, int)}
    return {"requests": 1, "retries": int(attempt > 0), "failures": int(bool(error)), **tokens}


def redact_key(key: str, text: str) -> str:
    """The text without the key."""
    return text.replace(key, HIDDEN) if len(key) >= SHORTEST else text


class Transcript:
    """Appends exchanges to a file. `totals` are the costs of all of them, earlier runs' included."""

    def __init__(self, path: Path, key: str) -> None:
        self.key, self.totals = key, Counter[str]()
        # Bytes, since the file is cut at a byte; appending, so that nothing of an earlier run is overwritten.
        self.file = path.open("a+b")
        whole = 0
        self.file.seek(0)
        for number, line in enumerate(self.file, start=1):
            if not line.endswith(b"\n"):
                break  # torn when a run was killed; `whole` ends before it
            try:
                row = json.loads(line)
                self.totals.update(costs(row["attempt"], row["error"], row["reply"]))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number}: not a line of this file ({error}); force=true") from None
            whole += len(line)
        self.file.truncate(whole)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, key_env: str) -> Iterator[Transcript]:
        """The file, which is not kept where nothing was said, nor where the user has to mend something first."""
        log = cls(path, os.environ.get(key_env, "").strip())
        try:
            yield log
        except UserError:
            if log.totals["requests"] == log.totals["failures"]:
                log.file.truncate(0)
            raise
        finally:
            log.file.close()
            if not path.stat().st_size:
                path.unlink()

    def __call__(self, exchange: Exchange) -> None:
        """Append one."""
        row = {field.name: getattr(exchange, field.name) for field in fields(exchange)}
        row["seconds"] = round(exchange.seconds, 3)
        # The key stands in no request, but a server may repeat it in its error.
        self.file.write(redact_key(self.key, encode(row)).encode() + b"\n")
        self.file.flush()  # a reply that was paid for outlives the process
        self.totals.update(costs(exchange.attempt, exchange.error, exchange.reply))
