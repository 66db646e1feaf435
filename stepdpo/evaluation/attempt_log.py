"""Attempts appended as they come, so that an evaluation which stops at any moment goes on from what it has finished.

`attempts.partial.jsonl` begins with a line of what the attempts depend on (identity.py). Then comes a line a problem:
its attempts, or why there are none. A problem counts as finished once its line is whole; a torn one is cut off when the
evaluation goes on, so nothing is lost but work in flight, and nothing is asked twice. Once all are finished,
`attempts.jsonl` is written in the order of the problems, and this file goes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stepdpo.core.errors import UserError
from stepdpo.core.types import Attempt, Problem
from stepdpo.evaluation.attempts import attempt_of, row_of
from stepdpo.evaluation.identity import Identity, must_be_same
from stepdpo.evaluation.worker import ProblemAttempts
from stepdpo.runtime.atomic_io import encode
from stepdpo.runtime.run_folder import ATTEMPTS_LOG


@contextmanager
def open_attempt_log(folder: Path, identity: Identity, resume: bool) -> Iterator[AttemptLog]:
    """The log of an evaluation; with `resume`, what an earlier try has left in `folder` is kept.

    Raises UserError where that was made of another task, template, decoder, scorer or model.
    """
    log = AttemptLog(folder / ATTEMPTS_LOG, identity)
    if resume:
        log.recover()
    else:
        log.path.unlink(missing_ok=True)
    try:
        yield log
    finally:
        log.close()


class AttemptLog:
    """What came of the problems so far. `done` need no more work, `failed` are to be tried again."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path, self.identity = path, identity
        self.done: dict[str, ProblemAttempts] = {}
        self.failed: dict[str, ProblemAttempts] = {}
        self.file: BinaryIO | None = None
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the evaluation began, without the time in which it was stopped."""
        return time.monotonic() - self.began

    def unfinished(self, problems: Sequence[Problem]) -> list[Problem]:
        """Those that are left, in their order."""
        return [problem for problem in problems if problem.id not in self.done]

    def attempts(self, problems: Sequence[Problem]) -> list[Attempt]:
        """Those that are there, in the order of the problems."""
        return [one for problem in problems if problem.id in self.done for one in self.done[problem.id].attempts]

    def add(self, found: ProblemAttempts) -> None:
        """Append what came of a problem; once the line is whole, it is finished."""
        if self.file is None:
            # Not before there is something to keep: a try that ends in a user's mistake leaves no log behind.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("ab")
            if not self.file.tell():
                self._append({"of": self.identity})
        what = (
            {"failed": found.failed, "said": found.said}
            if found.failed
            else {"attempts": [row_of(attempt) for attempt in found.attempts]}
        )
        self._append({"problem": found.problem, "seconds": round(self.seconds, 3), **what})
        self._tally(found)

    def close(self) -> None:
        """Stop writing; the evaluation may be resumed."""
        if self.file:
            self.file.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        # Flushed to the system, not synced to the disc, for which every problem would have to wait: a killed process
        # loses nothing.
        assert self.file is not None
        self.file.write(encode(row).encode() + b"\n")
        self.file.flush()

    def recover(self) -> None:
        """Read what is finished, and cut off a torn line."""
        if not self.path.exists():
            return
        whole, seconds = 0, 0.0
        with self.path.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                if not text.endswith(b"\n"):
                    break
                try:
                    row = json.loads(text)
                    if number == 1:
                        must_be_same(row["of"], self.identity, self.path.parent)
                    else:
                        self._tally(_read(row))
                        seconds = max(seconds, float(row["seconds"]))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise UserError(f"{self.path}:{number}: not a line of this file ({error}); force=true") from None
                whole += len(text)
        with self.path.open("ab") as file:
            file.truncate(whole)
        self.began = time.monotonic() - seconds

    def _tally(self, found: ProblemAttempts) -> None:
        if found.failed:
            self.failed[found.problem] = found
        else:
            self.failed.pop(found.problem, None)
            self.done[found.problem] = found


def _read(row: Mapping[str, Any]) -> ProblemAttempts:
    """The inverse of a line; KeyError or TypeError for a row that is none."""
    if "failed" in row:
        return ProblemAttempts(row["problem"], (), row["failed"], row["said"])
    return ProblemAttempts(row["problem"], tuple(attempt_of(one) for one in row["attempts"]))
