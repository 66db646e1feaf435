"""The words of `stepdpo export`: KEY=VALUE or --key VALUE, whichever a user writes, as one record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from stepdpo.core.errors import UserError, nearest

DTYPES = ("bfloat16", "float16", "float32")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""`owner/name`."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class ExportSettings:
    """What is written, and where."""

    out: Path | None = None
    """None: `export` in the run's folder."""
    dtype: str = ""
    """Of the weights; empty for that of the run's model."""
    merge: bool = True
    """Whether an adapter is written as the model that it is merged into; else alone."""
    shard: int = 5 * 10**9
    """Most bytes of a file of weights."""
    force: bool = False
    """Whether an earlier export gives way."""
    license: str = ""
    base: str = ""
    """Where others find the base, if not where the run found it."""
    push: str = ""
    """`owner/name` on the hub."""
    private: bool = True
    """Whether a repository that `push` makes is seen by its owner alone."""


def settings(words: Sequence[str], options: Mapping[str, str | bool | None]) -> ExportSettings:
    """The words after the run, and the options that were given; UserError for what is unknown, empty or said twice."""
    known = [field.name for field in fields(ExportSettings)]
    given: dict[str, str] = {key: str(value) for key, value in options.items() if value not in (None, False)}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known:
            raise UserError(f"{key}: there is no such setting; {nearest(key, known)}")
        if not equals or not value:
            raise UserError(f"{word}: written as {key}=VALUE")
        if key in given:
            raise UserError(f"{key}: given twice")
        given[key] = value
    made: dict[str, object] = {}
    for key, value in given.items():
        made[key] = _READERS.get(key, _text)(key, value)
    return ExportSettings(**made)  # type: ignore[arg-type]


def _text(key: str, value: str) -> object:
    return value


def _flag(key: str, value: str) -> object:
    words = {"true": True, "false": False}
    if value.lower() not in words:
        raise UserError(f"{key}: expected true or false, got {value!r}")
    return words[value.lower()]


def _dtype(key: str, value: str) -> object:
    if value not in DTYPES:
        raise UserError(f"{key}={value}: there is no such number format here; {nearest(value, DTYPES)}")
    return value


def _size(key: str, value: str) -> object:
    match = _SIZE.fullmatch(value.strip())
    if match is None or float(match[1]) == 0:
        raise UserError(f"{key}: expected a size such as 5GB or 500MB, got {value!r}")
    return max(1, int(float(match[1]) * _UNITS[match[2].upper()]))


def _hub_id(key: str, value: str) -> object:
    if not HUB_ID.fullmatch(value):
        raise UserError(f"{key}: expected owner/name, got {value!r}")
    return value


def _path(key: str, value: str) -> object:
    return Path(value)


_READERS = {
    "out": _path, "dtype": _dtype, "merge": _flag, "shard": _size, "force": _flag, "push": _hub_id, "private": _flag,
}  # fmt: skip
