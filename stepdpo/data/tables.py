"""Readers of files with columns: CSV, Parquet, Arrow."""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.data.row_files import MAX_LINE, opened, refuse_utf16
from stepdpo.data.rows import EXCERPT, BadRow, Row, checked

_TURNS = re.compile(r"""\s*\[\s*\{\s*['"]""")
_ARROW_FILE = b"ARROW1"
"""What the files of Arrow and Feather begin with; the streams that `datasets` writes do not."""


def csv_file(file: Path, delimiter: str = ",") -> Iterator[Row | BadRow]:
    """The records of a CSV file, by the line they begin on. Cells are text; an empty one is as if it were not there."""
    csv.field_size_limit(MAX_LINE)
    with opened(file) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as text:
        refuse_utf16(file, raw)
        records = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            names = next(records, [])
        except csv.Error as error:
            raise UserError(f"{file}:1: broken CSV in the names of the columns: {error}") from None
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise UserError(f"{file}:1: column {twice[0]!r} is given twice")
        while True:
            line = records.line_num + 1
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):  # a quotation mark that nothing closes swallows all that follows
                    raise UserError(f"{file}:{line}: broken CSV in the record that begins here: {error}") from None
                yield BadRow(str(file), line, f"broken CSV: {error}", "")
                continue
            if fields:
                yield _record(str(file), line, names, fields)


def _record(file: str, line: int, names: list[str], fields: list[str]) -> Row | BadRow:
    reason = "" if len(fields) == len(names) else f"{len(fields)} fields under {len(names)} columns"
    # A column without a name is what pandas makes of its row numbers.
    cells = {name: text for name, text in zip(names, fields, strict=False) if name and text}
    for name, text in cells.items():
        if _TURNS.match(text):
            reason = reason or f"column {name!r} holds a list as text; write such data as JSON Lines or Parquet"
    return BadRow(file, line, reason, ascii(fields)[:EXCERPT]) if reason else checked(file, line, cells)


def parquet(file: Path) -> Iterator[Row | BadRow]:
    """The rows of a Parquet file, numbered from 1."""
    arrow = _library("pyarrow")
    tables = _library("pyarrow.parquet")
    yield from _numbered(file, "Parquet", arrow, lambda: tables.ParquetFile(file).iter_batches(batch_size=1024))


def arrow_file(file: Path) -> Iterator[Row | BadRow]:
    """The rows of an Arrow file or stream (as `datasets` saves them), numbered from 1."""
    arrow = _library("pyarrow")
    ipc = _library("pyarrow.ipc")

    def batches() -> Iterator[Any]:
        with file.open("rb") as stream:
            whole = stream.read(len(_ARROW_FILE)) == _ARROW_FILE
        with arrow.memory_map(str(file)) as source:
            reader = ipc.open_file(source) if whole else ipc.open_stream(source)
            yield from (map(reader.get_batch, range(reader.num_record_batches)) if whole else reader)

    yield from _numbered(file, "Arrow", arrow, batches)


def _numbered(file: Path, kind: str, arrow: Any, batches: Any) -> Iterator[Row | BadRow]:
    line = 0
    try:
        parts: Iterable[Any] = batches()
        for batch in parts:
            sound = _is_sound(batch, arrow)
            for row in range(batch.num_rows):
                line += 1
                one = batch.slice(row, 1)
                try:  # row by row, so that text that is not UTF-8, or lies outside the file, costs one row
                    if not sound:
                        one.validate(full=True)
                    (cells,) = one.to_pylist()
                except (UnicodeDecodeError, ValueError, OverflowError, arrow.ArrowException) as error:
                    reason = "bytes that are not UTF-8" if "UTF" in str(error).upper() else "damaged"
                    yield BadRow(file=str(file), line=line, reason=f"{reason} ({_first_line(error)})", excerpt="")
                    continue
                yield checked(str(file), line, cells)
    except (arrow.ArrowException, EOFError, UnicodeDecodeError) as error:  # the last of names of columns
        raise UserError(f"{file}: cannot be read as {kind} after row {line} ({error})") from error


def _is_sound(batch: Any, arrow: Any) -> bool:
    """Whether all that a batch says of itself is so; reading one that is not may end the process."""
    try:
        batch.validate(full=True)
    except arrow.ArrowException:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError("reading Parquet and Arrow needs pyarrow: pip install datasets") from error
