"""preferences.jsonl, the one file format: a Preference a line, default fields left out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stepdpo.core.types import Mark, Preference, Turn
from stepdpo.data.fields import RowError, RowFields

FIELDS = tuple(f.name for f in dataclasses.fields(Preference))
WRITTEN = ("question", "prefix", "chosen", "rejected")
"""Fields that every line has."""
MARKS = ("chosen_steps", "rejected_steps", "chosen_weights", "rejected_weights")
"""Fields that are written as lists of [end, value]."""
MOST_WEIGHT = 1e9
"""Far above any use, and far below where a sum over tokens is infinite in fp32."""


def to_row(preference: Preference) -> dict[str, Any]:
    """The JSON object of a preference. `from_row` gives back an equal preference (of JSON values in meta)."""
    row: dict[str, Any] = {}
    for field in dataclasses.fields(Preference):
        value = getattr(preference, field.name)
        if field.name in WRITTEN or value != _default(field):
            row[field.name] = value
    for name in MARKS:
        if name in row:
            row[name] = [[mark.end, mark.value] for mark in row[name]]
    if preference.history:
        row["history"] = [{"role": turn.role, "content": turn.content} for turn in preference.history]
    if preference.meta:
        row["meta"] = dict(preference.meta)
    return row


def from_row(row: Mapping[str, Any]) -> Preference:
    """The preference that `to_row` made this object of; RowError names the column at fault."""
    return read_preference(RowFields(row))


def read_preference(cells: RowFields) -> Preference:
    """As `from_row`, for columns that may have other names."""
    history: tuple[Turn, ...] = cells.turns("history") if cells.has("history") else ()
    confidence = cells.number("confidence", 1.0, low=0.5, high=1.0)
    preference = Preference(
        question=cells.text("question"),
        prefix=cells.text("prefix", ""),
        chosen=cells.text("chosen"),
        rejected=cells.text("rejected", ""),
        chosen_rest=cells.text("chosen_rest", ""),
        rejected_rest=cells.text("rejected_rest", ""),
        answer=cells.text("answer", ""),
        confidence=1.0 if confidence is None else confidence,
        chosen_value=cells.number("chosen_value", None, low=-1, high=1),
        rejected_value=cells.number("rejected_value", None, low=-1, high=1),
        history=history,
        whole=cells.flag("whole"),
        label=cells.number("label", None, low=0, high=1),
        chosen_steps=cells.marks("chosen_steps", high=1),
        rejected_steps=cells.marks("rejected_steps", high=1),
        chosen_weights=cells.marks("chosen_weights", high=MOST_WEIGHT),
        rejected_weights=cells.marks("rejected_weights", high=MOST_WEIGHT),
        meta=cells.table("meta"),
    )
    _check_marks(preference)
    return preference


def _check_marks(preference: Preference) -> None:
    """RowError for a mark that lies beyond the text it is of."""
    for side in ("chosen", "rejected"):
        length = sum(len(text) for text in (preference.prefix, *sides(preference, side)))
        for name in (f"{side}_steps", f"{side}_weights"):
            marks: tuple[Mark, ...] = getattr(preference, name)
            if marks and marks[-1].end > length:
                text = f"prefix + {side} + {side}_rest"
                raise RowError(f"column {name!r}: a mark ends at {marks[-1].end}, and {text} has {length} characters")


def sides(preference: Preference, side: str) -> tuple[str, str]:
    """The step of a side (`chosen` or `rejected`), and the rest of its solution."""
    if side == "chosen":
        return preference.chosen, preference.chosen_rest
    return preference.rejected, preference.rejected_rest


def write_preferences(preferences: Iterable[Preference], path: Path) -> None:
    """Write preferences.jsonl whole or not at all."""
    write_lines((to_line(preference) for preference in preferences), path)


def to_line(preference: Preference) -> str:
    """One line of preferences.jsonl, without the line's end."""
    return json.dumps(to_row(preference), ensure_ascii=False, allow_nan=False)


def fingerprint(preferences: Iterable[Preference]) -> str:
    """SHA-256 of the preferences in their order: the same data give the same text, wherever they were read from."""
    digest = hashlib.sha256()
    for preference in preferences:
        digest.update(to_line(preference).encode() + b"\n")
    return digest.hexdigest()


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write lines to a file beside `path` and move it there, so that no reader sees a torn file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            for line in lines:
                stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)  # after the contents are on the disc, else a power cut could leave an empty file
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def require_pair(preference: Preference) -> None:
    """RowError unless the two sides differ. A row for supervised training has no rejected side at all."""
    if preference.rejected == preference.chosen:
        raise RowError("chosen and rejected are equal")
    if not preference.rejected.strip() and (preference.rejected or preference.rejected_rest):
        raise RowError("column 'rejected' is empty")
