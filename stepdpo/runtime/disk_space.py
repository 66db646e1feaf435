"""A full disc, told in one line: what was needed, and what is free."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepdpo.core.errors import Outage

LOW = 2**20
"""Free bytes below which a disc counts as full where a library hides why it could not write."""


@contextmanager
def writing(what: str, scratch: Path, needed: int = 0) -> Iterator[None]:
    """Write `what` into a folder that is removed if the disc is full, which ends in Outage.

    `needed`: bytes that it takes, where that is known from an earlier one.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error, scratch):
            raise
        written = size_of(scratch)
        shutil.rmtree(scratch, ignore_errors=True)  # what would keep it full
        amount = f"it takes {_readable(needed)}" if needed else f"more than {_readable(written)}"
        free = shutil.disk_usage(_there(scratch)).free
        raise Outage(f"{what}: no space left in {scratch.parent}: {amount}, {_readable(free)} are free") from error


def is_full(error: BaseException, place: Path) -> bool:
    """Whether a disc without room is behind an error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    hidden = "No space left" in str(error) or "os error 28" in str(error) or "failed writing" in str(error)
    return hidden or (isinstance(error, OSError | RuntimeError) and low(place))


def no_space(error: BaseException, place: Path) -> str:
    """An error of a full disc in one line, with the file where that is known; empty for any other error."""
    if not is_full(error, place):
        return ""
    file = getattr(error, "filename", None) or place
    return f"no space left on the disc of {file} ({_readable(shutil.disk_usage(_there(place)).free)} free in {place})"


def low(place: Path) -> bool:
    """Whether next to nothing can be written there any more."""
    return shutil.disk_usage(_there(place)).free < LOW


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _there(place: Path) -> Path:
    return next(one for one in (place, *place.absolute().parents) if one.exists())


def _readable(count: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.4g} {units[0]}"
