"""A content-addressed cache between runs: folders named by a hash of all they were made from. Standard library only.

    $STEPDPO_HOME (else $XDG_CACHE_HOME/stepdpo, else ~/.cache/stepdpo)
        tokens/3f1c.../       one entry; its key.json says what it was made from
        reference/90ab.../

An entry is written aside and renamed, so it is whole or absent, and two runs that write the same one do no harm.
Whoever writes holds a lock on what is half made; what nobody holds was left by a process that was killed, and goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.secrets import redact

HOME = "STEPDPO_HOME"
KEY = "key.json"
HOUR, WEEK = 3600.0, 7 * 24 * 3600.0
_SCRATCH = re.compile(r"\.[0-9a-f]+\.(?:(?P<host>.+)\.)?[0-9a-f]+\.tmp")


def root() -> Path:
    """Where all entries live; nothing is created."""
    if given := os.environ.get(HOME):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stepdpo"


def entry(kind: str, key: Mapping[str, Any]) -> Path:
    """The folder of the entry made from exactly `key` (plain JSON values), whether it is there or not."""
    # Sorted keys and plain ASCII: equal keys give equal text, in whatever order they were put together. 24 hex digits
    # are 96 bits, so two keys never meet, and a path stays short.
    text = json.dumps(key, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return root() / kind / hashlib.sha256(text.encode()).hexdigest()[:24]


@contextmanager
def building(final: Path, key: Mapping[str, Any]) -> Iterator[Path]:
    """Write into the folder this yields; leaving makes it the entry `final`, an exception removes it.

    Should another run have published the entry meanwhile, that one stays and this one goes.
    """
    with held(scratch_of(final)) as scratch:
        yield scratch
        publish(scratch, final, key)


def scratch_of(final: Path, host: str = "", token: str = "") -> Path:
    """Where an entry is half made: by a process of this machine unless another is named, under a `token` of its own."""
    # Beside the entry, since a rename is atomic within one file system only; with a name of its own, as another run may
    # be writing the same entry.
    return final.with_name(f".{final.name}.{host or socket.gethostname()}.{token or uuid.uuid4().hex}.tmp")


@contextmanager
def held(scratch: Path) -> Iterator[Path]:
    """Make a scratch folder, or join those who have, and hold it; if it was not published by the end, it goes."""
    make(scratch)
    handle = os.open(scratch, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks on this file system: what a killed process leaves stays for a week
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def tidy() -> None:
    """Remove what killed processes left half made; of other machines, whose processes none here sees, after a week."""
    for path in root().glob("*/.*.tmp"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if path.is_dir():
                _remove_if_left(path)
            elif _age(path) > HOUR:  # a small file, written in one go
                path.unlink()


def _remove_if_left(scratch: Path) -> None:
    match = _SCRATCH.fullmatch(scratch.name)
    patience = WEEK
    handle = os.open(scratch, os.O_RDONLY)
    try:
        if match and match["host"] == socket.gethostname():
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # An empty one may have been made this instant, and not be held yet.
                patience = 0.0 if any(scratch.iterdir()) else HOUR
        if _age(scratch) >= patience:
            shutil.rmtree(scratch)
    finally:
        os.close(handle)


def _age(path: Path) -> float:
    """Seconds since anything was written there."""
    return time.time() - max(one.stat().st_mtime for one in (path, *path.rglob("*")))


def make(folder: Path) -> None:
    """Create a folder of the cache; UserError names the setting where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache {root()}: {error.strerror or error}; set {HOME} to a folder that can be written"
        ) from error


def publish(scratch: Path, final: Path, key: Mapping[str, Any]) -> None:
    """Make a folder that several processes may have written into the entry `final`; one of them calls this."""
    write_json(scratch / KEY, redact(dict(key)))  # for people to read
    try:
        scratch.rename(final)
    except OSError:
        # A folder that is there and not empty cannot be renamed onto. An entry with a key is whole, and made from the
        # same: whoever comes second throws away its own.
        if not (final / KEY).is_file():
            raise
        shutil.rmtree(scratch)


def discard(final: Path) -> None:
    """Remove an entry, at once out of sight."""
    if final.exists():
        gone = scratch_of(final)
        final.rename(gone)  # deleting takes time, in which nobody may find half an entry
        shutil.rmtree(gone, ignore_errors=True)
