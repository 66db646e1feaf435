"""Readers of JSON Lines and JSON arrays, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from stepdpo.core.errors import UserError
from stepdpo.data.rows import EXCERPT, BadRow, Row, checked, unsound

MAX_LINE = 16 * 2**20
"""Bytes; a longer line (a binary file under a wrong name, say) is a bad row, and is not held in memory."""
COMPRESSED: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[\s,]*")


def jsonl(file: Path) -> Iterator[Row | BadRow]:
    """One JSON object a line. Byte-order marks, CRLF and blank lines are accepted."""
    with opened(file) as stream:
        refuse_utf16(file, stream)
        for line, raw in enumerate(_lines(stream), start=1):
            body = raw.removeprefix(_BOM).strip()
            if not body:
                continue
            # A character of UTF-8 is at most 4 bytes.
            excerpt = body[: 4 * EXCERPT].decode("utf-8", "backslashreplace")[:EXCERPT]
            try:
                yield Row(file=str(file), line=line, cells=_parse(body))
            except ValueError as error:
                yield BadRow(file=str(file), line=line, reason=str(error), excerpt=excerpt)


def json_file(file: Path) -> Iterator[Row | BadRow]:
    """A JSON array of objects, one object, or JSON Lines under the name of JSON."""
    with opened(file) as stream:
        raw = stream.read().removeprefix(_BOM)
    text = raw.decode("utf-8", "surrogateescape")  # a wrong byte spoils its element, not the file
    if text.lstrip().startswith("["):
        yield from _array(file, text)
        return
    try:
        whole = _load(text)
    except ValueError:
        yield from jsonl(file)
        return
    yield checked(str(file), 1, whole)


def opened(file: Path) -> BinaryIO:
    """The bytes of a file, decompressed where its name says so."""
    return cast(BinaryIO, COMPRESSED.get(file.suffix.lower(), open)(file, "rb"))


def refuse_utf16(file: Path, stream: BinaryIO) -> None:
    """UserError for a file that begins like UTF-16; the stream stays where it was, at its beginning."""
    begins = stream.read(2)
    stream.seek(0)
    if begins in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{file}: this file is UTF-16; save it as UTF-8")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of at most MAX_LINE + 1 bytes: the rest of a longer one is skipped."""
    while raw := stream.readline(MAX_LINE + 1):
        yield raw
        while len(raw) > MAX_LINE and not raw.endswith(b"\n"):
            raw = stream.readline(MAX_LINE + 1)


def _parse(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_LINE:
        raise ValueError(f"a line of more than {MAX_LINE // 2**20} MiB")
    if b"\x00" in body:
        raise ValueError(f"NUL byte at column {body.index(0) + 1}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{body[error.start]:02x} at column {error.start + 1} is not UTF-8") from None
    cells = _object(_load(text))
    # The bytes are sound by now: only an escape can still bring in a NUL or half a surrogate pair.
    if "\\u" in text and (reason := unsound(cells)):
        raise ValueError(reason)
    return cells


def _load(text: str) -> Any:
    """JSON whose objects never name a key twice; ValueError with a short reason otherwise."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"column {next(k for k in names if names.count(k) > 1)!r} is given twice")
    return cells


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _array(file: Path, text: str) -> Iterator[Row | BadRow]:
    """Elements of a JSON array with their lines. A tear hides all that follows, so it stops the reading."""
    decoder = json.JSONDecoder(parse_int=len)  # only to find where an element ends, however long its numbers are
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = _space_after(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text.startswith("]", at):
            break
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{file}:{line}: broken JSON in the element that begins here: {reason}") from None
        try:
            yield checked(str(file), line, _load(text[at:end]))
        except ValueError as error:
            yield BadRow(file=str(file), line=line, reason=str(error), excerpt=ascii(text[at:end])[:EXCERPT])
        at = end
    if text[at + 1 :].strip():
        raise UserError(f"{file}:{line}: there is more text after the end of the JSON array")


def _space_after(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
