"""How a job ended: the record that goes from a worker, by way of exit.json, to the command's exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from stepdpo.runtime.secrets import redact_text

EXIT_FILE = "exit.json"
"""Left in the run folder by a worker: {"code", "message", "outcome"}."""


class ExitCode(IntEnum):
    """Exit codes of our own; a job that a signal ended has 128 plus its number, as in a shell."""

    OK = 0
    FAILED = 1
    USER_ERROR = 2
    """Also what the command line's parser answers to words it does not know."""
    DIVERGED = 5


@dataclass(frozen=True)
class JobResult:
    """How a job ended, and what came of it."""

    code: int = ExitCode.OK
    message: str = ""
    """For the user; empty where all went well."""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    """The last metrics of a training, the accuracy of an evaluation, the counts of a run of `stepdpo pairs`."""
    signal: int = 0
    """The signal that this process passed on to the workers; 0 for none."""
    lost_peers: bool = False
    """A worker waited in vain for another, or lost touch with it: what became of that one is the cause."""
    already_finished: bool = False
    """The run had nothing left to do."""
    begun: bool = False
    """Something in the run folder is worth keeping, even after an error of the user's."""

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return self.code == ExitCode.OK

    @property
    def objective(self) -> float | None:
        """The one number a sweeper may optimise: held-out accuracy, else the negative loss."""
        for key in ("heldout/rewards/accuracies", "accuracy"):
            if key in self.outcome:
                return float(self.outcome[key])
        loss = self.outcome.get("heldout/loss", self.outcome.get("loss"))
        return -float(loss) if loss is not None else None

    @property
    def summary(self) -> str:
        """In a few words, for the table of a sweep."""
        if not self.ok:
            return f"exit {self.code:d}: {(self.message.splitlines() or ['?'])[0]}"
        return "ok" if self.objective is None else f"ok ({self.objective:.4g})"

    def write(self, path: Path, rank: int) -> None:
        """Leave it in exit.json, whole or not at all."""
        # No fsync, as the reader is a process of this moment; the rank, as several workers may fail at once.
        scratch = path.with_name(f".{path.name}.{rank}.tmp")
        scratch.write_text(
            json.dumps(
                {
                    "code": self.code,
                    "message": redact_text(self.message),
                    "outcome": self.outcome,
                    "lost_peers": self.lost_peers,
                }
            ),
            encoding="utf-8",
        )
        scratch.replace(path)


def take_result(folder: Path, signal: int = 0) -> JobResult | None:
    """What a worker left in exit.json, which is then gone; None where it left nothing."""
    path = folder / EXIT_FILE
    if not path.is_file():
        return None
    left: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return replace(JobResult(**left), signal=signal)
