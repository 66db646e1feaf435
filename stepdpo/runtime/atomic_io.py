"""Files that are either whole or absent: atomic text, JSON and JSON-lines. Standard library only."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write `path` in one step: a reader sees the old text or the new one, even after a power cut."""
    # The order is the guarantee: contents to the disc, then the name, then the folder that holds the name. Renamed
    # before its contents are down, the file could be there and empty after a power cut.
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with scratch.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)  # noqa: PTH105 - the call the guarantee rests on
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented; NaN and infinity are refused with ValueError."""
    write_text(path, encode(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(encode(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read one JSON value; UserError names the file that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one object a line; UserError names the file and the line at fault."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().split(b"\n")  # bytes: a line that is not UTF-8 is named by its number, too
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        rows.append(row)
    return rows


def encode(value: Any, indent: int | None = None) -> str:
    """JSON with readable non-ASCII letters, except where a lone surrogate could not be written as UTF-8."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair is what a model's token or a torn row may leave; JSON can escape it, UTF-8 cannot hold it.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def tidy(folder: Path) -> None:
    """Remove what killed processes left half written in a folder; for one that alone writes there."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
