"""What a name of a column means: the column, a place inside one (`meta.answer`), or a text put together of several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepdpo.core.errors import nearest

_PART = re.compile(r"\{([^{}]+)\}")


class NoColumn(ValueError):
    """A text is put together of a column that the row has not; the message says which."""


def cell(values: Mapping[str, Any], name: str) -> Any:
    """What a row has there, of whatever type; None for nothing.

    A column of just that name comes first. `{Body} {Question}` is a text in which each name in braces stands for what
    is there: null for nothing, a list for a line an item. `meta.answer` is `answer` within the object `meta`,
    `answers.0` the first of a list. Raises NoColumn where a name in braces is not there at all: half a question is
    another question.
    """
    if name in values:
        return values[name]
    if "{" in name:
        if lacking := missing(values, name):
            raise NoColumn(lacking)
        parts = {part: cell(values, part) for part in read_by(name)}
        if all(value is None for value in parts.values()):
            return None
        return _PART.sub(lambda match: _text(parts[match[1]]), name).strip()
    return _inside(values, name.split("."))[0] if "." in name else None


def read_by(name: str) -> Iterator[str]:
    """The names that a name is put together of; itself where it is none of these."""
    yield from _PART.findall(name) or [name]


def outermost(name: str) -> Iterator[str]:
    """The columns of the row that a name reads, its own spelling among them."""
    for part in (name, *read_by(name)):
        yield part
        yield part.partition(".")[0]


def missing(values: Mapping[str, Any], name: str) -> str:
    """What the row lacks of all that a name reads, and what it has instead; empty where it has all, even if null."""
    parts = [name] if name in values else list(read_by(name))
    lacking = next((part for part in parts if part not in values and not _inside(values, part.split("."))[1]), None)
    return "" if lacking is None else f"no column {lacking!r}; {absent(values, lacking)}"


def absent(values: Mapping[str, Any], name: str) -> str:
    """What is there in place of a missing name, in a few words: the one most like it, or all."""
    before, holder = "", values
    steps = name.split(".")
    for step in steps[:-1]:
        inner = holder.get(step)
        if not isinstance(inner, dict):
            break
        before, holder = f"{before}{step}.", inner
    return nearest(name, [f"{before}{key}" for key in holder])


def _inside(values: Mapping[str, Any], steps: list[str]) -> tuple[Any, bool]:
    """(what is found on that way into objects and lists, whether it is there at all)."""
    at: Any = values
    for step in steps:
        if isinstance(at, Mapping) and step in at:
            at = at[step]
        elif isinstance(at, list) and step.isdecimal() and int(step) < len(at):
            at = at[int(step)]
        else:
            return None, False
    return at, True


def _text(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return "\n".join("" if item is None else str(item) for item in items)
