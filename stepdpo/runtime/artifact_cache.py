"""A content-addressed cache between runs: folders named by a hash of all they were made from. Standard library only.

    $STEPDPO_HOME (else $XDG_CACHE_HOME/stepdpo, else ~/.cache/stepdpo)
        tokens/3f1c.../       one entry; its key.json says what it was made from
        reference/90ab.../

An entry is written aside and renamed, so it is whole or absent, and two runs that write the same one do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import write_json

HOME = "STEPDPO_HOME"
KEY = "key.json"


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
    # Beside the entry, since a rename is atomic within one file system only; with a name of its own, as another run may
    # be writing the same entry.
    scratch = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    make(scratch)
    try:
        yield scratch
        publish(scratch, final, key)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    write_json(scratch / KEY, dict(key))
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
        gone = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
        final.rename(gone)  # deleting takes time, in which nobody may find half an entry
        shutil.rmtree(gone, ignore_errors=True)
