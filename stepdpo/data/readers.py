"""Where rows come from: a file, a folder of files, the package, or the hub (the only importer of `datasets`)."""

from __future__ import annotations

import hashlib
import importlib
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core import package_data
from stepdpo.core.errors import UserError
from stepdpo.data import row_files as files
from stepdpo.data import tables
from stepdpo.data.folders import folder_files
from stepdpo.data.rows import BadRow, Row, checked

READERS: Mapping[str, Callable[[Path], Iterator[Row | BadRow]]] = {
    ".jsonl": files.jsonl,
    ".ndjson": files.jsonl,
    ".json": files.json_file,
    ".csv": tables.csv_file,
    ".tsv": partial(tables.csv_file, delimiter="\t"),
    ".parquet": tables.parquet,
    ".arrow": tables.arrow_file,
    ".feather": tables.arrow_file,
}
_ARCHIVE, _EXCEL, _PYTHON, _DATABASE = "an archive", "an Excel workbook", "a pickle of Python", "a database"
FOREIGN = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _EXCEL),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz"), _PYTHON),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), _DATABASE),
    **dict.fromkeys((".zst", ".lz4", ".orc", ".avro"), "this kind of file"),
}


def read_rows(path: str, *, split: str = "", subset: str = "", revision: str = "") -> Iterator[Row | BadRow]:
    """Every row of `path`, in order; what cannot be read comes as a BadRow, never as an exception.

    A path that exists, or begins with `pkg://`, is read from disc; `owner/name` comes from the hub, where
    `subset`, `split` (default: train) and `revision` apply. In a folder, `split` chooses the files whose
    names begin with it (`folders.folder_files`). UserError when there is nothing to read.
    """
    found = local_files(path, split)
    if found is None:
        yield from _hub_rows(path, subset=subset, split=split or "train", revision=revision)
        return
    for file in found:
        reader = READERS.get(_kind(file), files.jsonl)
        try:
            yield from reader(file)
        except OSError as error:
            raise UserError(f"{file}: {error.strerror or error}") from error
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{file}: cannot be decompressed ({error})") from error


def local_files(path: str, split: str = "") -> list[Path] | None:
    """The files that `read_rows` reads, in order; None for a data set of the hub."""
    place = locate(path)
    return None if place is None else _files(place, split)


def fingerprint_of(part: object, files: Iterable[Path]) -> str:
    """Hash of the settings of a part and of the bytes of files, which are all that it is made from."""
    digest = hashlib.sha256(repr(part).encode("utf-8", "surrogatepass"))
    # Bytes, not times of change: a copied or restored file is the same data.
    for file in files:
        digest.update(b"\n" + os.fsencode(file) + b"\n")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def locate(path: str) -> Path | None:
    """The local file or folder that `path` names, or None when it reads as a hub id."""
    if path in ("", "???"):
        raise UserError("no data given: set its path to a file, a folder or a hub id (owner/name)")
    if path.startswith(package_data.PREFIX):
        return _in_package(path.removeprefix(package_data.PREFIX))
    place = Path(path).expanduser()
    # What exists comes first: a folder `owner/name` beside us is not looked for on the hub.
    try:
        if place.exists():
            return place
    except (OSError, ValueError) as error:
        raise UserError(f"{path!r} is not a usable path: {error}") from error
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) and _kind(place) not in READERS:
        return None
    siblings = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
    close = get_close_matches(place.name, siblings, n=1)
    hint = f"; did you mean {place.with_name(close[0])}?" if close else ""
    raise UserError(f"{path}: no such file or folder, and not a hub id (owner/name){hint}")


def _in_package(name: str) -> Path:
    root = Path(stepdpo.__file__).resolve().parent
    place = (root / name).resolve()
    if not place.is_relative_to(root):
        raise UserError(f"{package_data.PREFIX}{name} leads out of the package")
    if not place.exists():
        raise UserError(f"{package_data.PREFIX}{name} is not part of this installation of stepdpo")
    return place


def _files(place: Path, split: str) -> list[Path]:
    if place.is_dir():
        return folder_files(place, split, lambda file: _kind(file) in READERS)
    if known_as := FOREIGN.get(_kind(place)):
        raise UserError(f"{place}: {known_as} is not read; save the rows as JSON Lines, CSV or Parquet")
    return [place]


def _kind(file: Path) -> str:
    """The suffix that says how the file is laid out, below that of its compression."""
    packed = file.suffix.lower() in files.COMPRESSED
    return (Path(file.stem) if packed else file).suffix.lower()


def _hub_rows(path: str, *, subset: str, split: str, revision: str) -> Iterator[Row | BadRow]:
    """The rows of one split, numbered from 1. No code of the data set is ever run."""
    for number, cells in enumerate(_load_from_hub(path, subset, split, revision), start=1):
        yield checked(path, number, cells)


def _load_from_hub(path: str, subset: str, split: str, revision: str) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"{path}: reading from the hub needs the datasets package: pip install datasets") from error
    try:
        return datasets.load_dataset(path, subset or None, split=split, revision=revision or None)
    except Exception as error:  # the library raises many kinds: all of them mean that there are no rows
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: there is no such local file, and the hub gave no split {split!r}: {first}\n"
            f"  without a network, download the files once and set the path to the file or its folder"
        ) from error
