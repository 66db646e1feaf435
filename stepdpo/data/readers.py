"""Where rows come from: a file, a folder of files, a file of the package, or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.data import hub
from stepdpo.data import row_files as files
from stepdpo.data.rows import BadRow, Row

READERS = {".jsonl": files.jsonl, ".json": files.json_file, ".parquet": files.parquet}
PREFERENCES, QUARANTINE = "preferences.jsonl", "quarantine.jsonl"
PACKAGE = "pkg://"


def read_rows(path: str, *, split: str = "", subset: str = "", revision: str = "") -> Iterator[Row | BadRow]:
    """Every row of `path`, in order; what cannot be read comes as a BadRow, never as an exception.

    A path that exists, or begins with `pkg://`, is read from disc; `owner/name` comes from the hub, where
    `subset`, `split` (default: train) and `revision` apply. In a folder, `split` chooses the files whose
    names begin with it. UserError when there is nothing to read.
    """
    found = local_files(path, split)
    if found is None:
        yield from hub.read(path, subset=subset, split=split or "train", revision=revision)
        return
    for file in found:
        reader = READERS.get(file.suffix.lower(), files.jsonl)
        try:
            yield from reader(file)
        except OSError as error:
            raise UserError(f"{file}: {error.strerror or error}") from error


def local_files(path: str, split: str = "") -> list[Path] | None:
    """The files that `read_rows` reads, in order; None for a data set of the hub."""
    place = locate(path)
    return None if place is None else _files(place, split)


def locate(path: str) -> Path | None:
    """The local file or folder that `path` names, or None when it reads as a hub id."""
    if path in ("", "???"):
        raise UserError("no data given: set its path to a file, a folder or a hub id (owner/name)")
    if path.startswith(PACKAGE):
        return _in_package(path.removeprefix(PACKAGE))
    place = Path(path).expanduser()
    try:
        if place.exists():
            return place
    except (OSError, ValueError) as error:
        raise UserError(f"{path!r} is not a usable path: {error}") from error
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) and place.suffix.lower() not in READERS:
        return None
    siblings = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
    close = get_close_matches(place.name, siblings, n=1)
    hint = f"; did you mean {place.with_name(close[0])}?" if close else ""
    raise UserError(f"{path}: no such file or folder, and not a hub id (owner/name){hint}")


def _in_package(name: str) -> Path:
    root = Path(stepdpo.__file__).resolve().parent
    place = (root / name).resolve()
    if not place.is_relative_to(root):
        raise UserError(f"{PACKAGE}{name} leads out of the package")
    if not place.exists():
        raise UserError(f"{PACKAGE}{name} is not part of this installation of stepdpo")
    return place


def _files(place: Path, split: str) -> list[Path]:
    if place.is_file():
        return [place]
    if (place / PREFERENCES).is_file():
        return [place / PREFERENCES]  # the folder of a `pairs` run
    found = sorted(p for p in place.iterdir() if p.is_file() and p.suffix.lower() in READERS and p.name != QUARANTINE)
    if not found:
        raise UserError(f"{place}: no {', '.join(READERS)} file in this folder")
    chosen = [p for p in found if p.name.startswith(split)]
    if not chosen:
        names = ", ".join(p.name for p in found[:5])
        raise UserError(f"{place}: no file name begins with the split {split!r} (there is {names}); split='' reads all")
    return chosen
