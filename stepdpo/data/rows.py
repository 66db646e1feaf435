"""What reading yields: rows with the place they came from, and rows that cannot be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepdpo.runtime.secrets import redact_text

EXCERPT = 200
"""Characters of a bad row that are kept: enough to know it again, and a quarantine of millions of rows stays small."""


@dataclass(frozen=True, slots=True)
class Row:
    """One readable row: a JSON object, not yet understood."""

    file: str
    line: int
    """From 1; in a Parquet file or a hub data set, the number of the row."""
    cells: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Where the row is, as `file:line`."""
        return f"{self.file}:{self.line}"

    def bad(self, reason: str) -> BadRow:
        """The same row, found to be unusable."""
        return BadRow(file=self.file, line=self.line, reason=reason, excerpt=excerpt_of(dict(self.cells)))


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that cannot be used, and why."""

    file: str
    line: int
    reason: str
    excerpt: str
    """The beginning of the row as text."""

    @property
    def place(self) -> str:
        """Where the row is, as `file:line`."""
        return f"{self.file}:{self.line}"

    def record(self) -> dict[str, Any]:
        """As it is written: a path may hold what a reference to the environment stands for."""
        return {**dataclasses.asdict(self), "file": redact_text(self.file)}


def excerpt_of(value: Any) -> str:
    """The beginning of a value as text; empty for one nested too deeply to be written."""
    # `ascii`: it has to be written, whatever characters are in it.
    try:
        return ascii(value)[:EXCERPT]
    except (RecursionError, ValueError):
        return ""


def bad_row(place: str, reason: str, text: str) -> BadRow:
    """Of a place as `file:line`."""
    file, _, line = place.rpartition(":")
    return BadRow(file=file, line=int(line), reason=reason, excerpt=ascii(text)[:EXCERPT])


def checked(file: str, line: int, value: Any) -> Row | BadRow:
    """A Row when `value` is an object with sound text in it, a BadRow otherwise."""
    reason = unsound(value) if isinstance(value, dict) else f"expected a JSON object, got {type(value).__name__}"
    if not reason:
        return Row(file=file, line=line, cells=value)
    return BadRow(file=file, line=line, reason=reason, excerpt=excerpt_of(value))


def unsound(value: Any) -> str:
    """Why some text within `value` cannot be tokenised or written again; empty when all is well."""
    try:
        return _unsound(value)
    except RecursionError:
        return "nested too deeply"


def _unsound(value: Any) -> str:
    if isinstance(value, str):
        if "\x00" in value:
            return "the text holds a NUL character"
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return "the text holds bytes that are not UTF-8, or half of a surrogate pair"
        return ""
    # Names of columns as well: they are printed, and written again with the row.
    children = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_unsound, children)), "")
