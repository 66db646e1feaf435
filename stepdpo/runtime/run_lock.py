"""One command, one run folder: a lock that says who holds it, and holds as long as any process of the run is left."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from stepdpo.core.errors import UserError
from stepdpo.runtime.worker_lock import WORKERS, alive, forget, unaccounted

LOCK = ".lock"
LOCKS = (LOCK, WORKERS)
"""The files of a run folder that are no part of the run. Never deleted while it is held: others have them open."""
PATIENCE = 10.0
"""Seconds that workers of a command that has ended have to finish their update, before a next command is refused."""
ATTEMPTS = 3
"""How often a taken lock is tried, 0.1 s apart: `holder` also takes it, for an instant, to see whether it is free."""
log = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder; a second holder gets UserError with the first one's pid and host.

    The kernel drops the lock with its process, so one that can be taken is free or stale, whatever it says. Where a
    command was killed, its workers may still be stopping: they are waited for, PATIENCE long, then named in UserError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")  # "w" would wipe out what the holder wrote
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror})") from error
    with file:
        free, owner = _take(file), _owner(folder)
        if not free:
            raise busy(folder, owner)
        if owner:
            who = f"pid {owner.get('pid')} on {owner.get('host')}"
            log.warning("%s: taking over the stale lock of %s, which ended without releasing it", folder, who)
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "id": uuid.uuid4().hex}
        file.write(json.dumps(owner))
        file.flush()  # from here on, workers of another command see that they are alone, and stop
        try:
            _wait_for_workers(folder)
            forget(folder)
            yield
        finally:
            # Emptied, not deleted: whoever waits holds the old file open, and would lock one that has no name any more
            # while a third locks a new one.
            file.truncate(0)


def holder(folder: Path) -> dict[str, Any] | None:
    """Who holds the run folder now (`pid`, `host`, `since`); None when it is free or its lock is stale."""
    try:
        with (folder / LOCK).open("r", encoding="utf-8") as file:
            # Shared, so that two who look do not take each other for a holder; closing the file gives it back.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(folder)
    except OSError:
        return None
    return None


def command_id(folder: Path) -> str:
    """What tells the command that holds a folder from all others; empty when it never was held."""
    return str(_owner(folder).get("id", ""))


def is_held_by(folder: Path, command: str) -> bool:
    """Whether that command still holds the folder. Of one on another machine only its word is seen, not its end."""
    owner = _owner(folder)
    if owner.get("id") != command:
        return False
    return owner.get("host") != socket.gethostname() or holder(folder) is not None


def busy(folder: Path, owner: Mapping[str, Any]) -> UserError:
    """The error for a run folder that someone else holds."""
    who = f"pid {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"
    return UserError(f"{folder} is in use by {who}: wait for it, stop it, or choose another name")


def _wait_for_workers(folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while alive(folder):
        if time.monotonic() > until:
            left = ", ".join(str(worker) for worker in unaccounted(folder)) or "another process"
            raise UserError(
                f"{folder} is in use: of a command that has ended, {left} still works there "
                "and stops after its update; wait for it, or stop it"
            )
        time.sleep(0.1)


def _take(file: IO[str]) -> bool:
    for attempt in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1 if attempt + 1 < ATTEMPTS else 0.0)
        except OSError as error:
            log.warning("%s: no locks on this file system (%s); two runs here would not notice", file.name, error)
            return True
    return False


def _owner(folder: Path) -> dict[str, Any]:
    try:
        owner = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
