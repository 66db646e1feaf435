"""The processes that work in a run folder: each holds it until it ends, and none outlives its command for long.

The command holds the folder too (`run_lock`), but a command can be killed and leave its workers behind, on this machine
or on others. So each worker holds a shared lock on one file, in which it also says who it is.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stepdpo.core.errors import UserError

WORKERS = ".workers"
POLL_SECONDS = 0.5
"""How often a worker looks whether its command still is: soon against an update, seldom for a network's disc."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """A process of a run."""

    rank: int
    pid: int
    host: str

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid} on {self.host})"

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()


def register(folder: Path, rank: int, commanded: Callable[[], bool]) -> Callable[[], None]:
    """Hold a run folder as one of its workers until this process ends; returns how to say that it ends of itself.

    `commanded`: whether the command that started this process still holds the folder. Once it does not, this process
    gets SIGTERM: it saves and stops, as if the command had passed the signal on. Raises UserError if the command has
    gone already.
    """
    path = folder / WORKERS
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_SH)  # before the look at the command: whoever follows it sees this process
    except OSError as error:
        log.warning("%s: no locks on this file system (%s)", path, error)
    if not commanded():
        file.close()
        raise UserError("the command that started this process has ended")

    def say(left: bool) -> None:
        word = {"rank": rank, "pid": os.getpid(), "host": socket.gethostname(), "left": left}
        with suppress(OSError):  # a full disc
            file.write(json.dumps(word) + "\n")  # in one piece: shorter than a page, and the file is open to append
            file.flush()

    def watch() -> None:
        while commanded():
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()  # for ever: with this thread the file would be closed, and the folder be free

    say(left=False)
    threading.Thread(target=watch, name="command", daemon=True).start()
    return lambda: say(left=True)


def alive(folder: Path) -> bool:
    """Whether any worker still holds the folder."""
    try:
        with (folder / WORKERS).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def unaccounted(folder: Path) -> list[Worker]:
    """The workers that have come and not said that they go, by rank: working still, hung, or dead."""
    found: dict[Worker, bool] = {}
    with suppress(OSError):
        for line in (folder / WORKERS).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                row = json.loads(line)
                found[Worker(int(row["rank"]), int(row["pid"]), str(row["host"]))] = bool(row["left"])
    return sorted((worker for worker, left in found.items() if not left), key=lambda worker: worker.rank)


def forget(folder: Path) -> None:
    """Empty the list, for workers to come; only where none is `alive`."""
    with suppress(OSError):
        os.truncate(folder / WORKERS, 0)
