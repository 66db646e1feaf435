"""One process, one run folder: a lock that says who holds it and cannot outlive its holder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from stepdpo.core.errors import UserError

LOCK = ".lock"
ATTEMPTS = 3
"""How often a taken lock is tried, 0.1 s apart: `holder` also takes it, for an instant, to see whether it is free."""
log = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder; a second holder gets UserError with the first one's pid and host.

    The kernel drops the lock with its process, so one that can be taken is free or stale, whatever it says.
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
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()
        try:
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


def busy(folder: Path, owner: Mapping[str, Any]) -> UserError:
    """The error for a run folder that someone else holds."""
    who = f"pid {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"
    return UserError(f"{folder} is in use by {who}: wait for it, stop it, or choose another name")


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
