"""Typed access to the columns of one row, with reasons that name the column at fault."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.types import Mark, Turn
from stepdpo.data.columns import NoColumn, absent, cell

_JSON = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class RowError(ValueError):
    """Why one row cannot be used."""


@dataclass(frozen=True, slots=True)
class RowFields:
    """The columns of a row, asked for by our names.

    `names` maps our name of a column to the file's, where they differ: a column, a place inside one, or a text put
    together of several (`columns.cell`). A missing or null column takes the default when there is one; RowError
    otherwise.
    """

    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)

    def has(self, column: str) -> bool:
        """Whether the row has the column, and not null."""
        return self.value(column) is not None

    def text(self, column: str, default: str | None = None) -> str:
        """A string, as it is; without a default it must hold more than white space."""
        value = self._get(column, "a string", default)
        if not isinstance(value, str):
            raise self._wrong(column, "a string", value)
        if default is None and not value.strip():
            raise RowError(f"column {self._name(column)} is empty")
        return value

    def number(self, column: str, default: float | None, low: float, high: float) -> float | None:
        """A finite number within [low, high]."""
        if not self.has(column):
            return default
        value = self._get(column, "a number", None)
        if isinstance(value, str):  # CSV knows nothing else
            try:
                value = float(value)
            except ValueError:
                raise self._wrong(column, "a number", value) from None
        if isinstance(value, bool) or not isinstance(value, int | float):  # to Python, true is an int
            raise self._wrong(column, "a number", value)
        # Compared as it is: an integer of hundreds of digits is no float. NaN lies between nothing.
        if not low <= value <= high:
            raise RowError(f"column {self._name(column)}: {str(value)[:20]} is not between {low:g} and {high:g}")
        return float(value)

    def answers(self, column: str) -> tuple[str, ...]:
        """Final answers: a string, a number, or a list of these; () when there is none."""
        if not self.has(column):
            return ()
        value = self._get(column, "a string", None)
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, str | int | float):
                raise self._wrong(column, "a string, a number or a list of them", item)
        return tuple(text for item in items if (text := str(item).strip()))

    def marks(self, column: str, high: float) -> tuple[Mark, ...]:
        """Stretches of a text as a list of [end, value]: ends rise, values are null or in [0, high] (`high` finite)."""
        value = self._get(column, "a list of [end, value]", [])
        if not isinstance(value, list):
            raise self._wrong(column, "a list of [end, value]", value)
        marks, before = [], 0
        for number, item in enumerate(value):
            at = f"column {self._name(column)}, mark {number}"
            if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not int:
                raise RowError(f"{at}: expected [end, value], got {str(item)[:40]}")
            end, given = item
            if end <= before:
                raise RowError(f"{at}: ends at {end}, not after the one before it")
            if isinstance(given, bool) or not isinstance(given, int | float | None):
                raise RowError(f"{at}: expected a number or null, got {str(given)[:40]}")
            if given is not None and not 0 <= given <= high:
                raise RowError(f"{at}: {str(given)[:20]} is not between 0 and {high:g}")
            marks.append(Mark(end, None if given is None else float(given)))
            before = end
        return tuple(marks)

    def turns(self, column: str) -> tuple[Turn, ...]:
        """A conversation in either habit: {role, content} or {from, value}; only the first turn may be the system's."""
        value = self._get(column, "a list of turns", None)
        if not isinstance(value, list):
            raise self._wrong(column, "a list of turns", value)
        turns = tuple(self._turn(column, i, item) for i, item in enumerate(value))
        if any(turn.role == "system" for turn in turns[1:]):
            raise RowError(f"column {self._name(column)}: a system turn that is not the first")
        return turns

    def side(self, column: str) -> tuple[tuple[Turn, ...], str]:
        """(the turns before it, a response): of a string, one turn, or turns of which the last is the assistant's."""
        value = self.value(column)
        if isinstance(value, dict) and value.keys() & {"role", "from"}:
            turns: tuple[Turn, ...] = (self._turn(column, 0, value),)
        elif isinstance(value, list):
            turns = self.turns(column)
        else:
            return (), self.text(column)
        if not turns or turns[-1].role != "assistant" or not turns[-1].content.strip():
            expected = "expected a string, or turns of which the last is the assistant's and not empty"
            raise RowError(f"column {self._name(column)}: {expected}")
        return turns[:-1], turns[-1].content

    def value(self, column: str) -> Any:
        """What the row has there, of whatever type; None for nothing."""
        try:
            return cell(self.values, self.names.get(column, column))
        except NoColumn as error:
            raise RowError(f"columns.{column}: {error}") from None

    def flag(self, column: str) -> bool:
        """True or false; false when the column is missing."""
        value = self._get(column, "true or false", False)
        if not isinstance(value, bool):
            raise self._wrong(column, "true or false", value)
        return value

    def items(self, column: str, expected: str) -> list[Any]:
        """A list of whatever kind, not empty; `expected` says of what."""
        value = self._get(column, expected, None)
        if not isinstance(value, list):
            raise self._wrong(column, expected, value)
        if not value:
            raise RowError(f"column {self._name(column)} is empty")
        return value

    def inner(self, column: str) -> RowFields:
        """The fields of an object."""
        value = self._get(column, "an object", None)
        if not isinstance(value, dict):
            raise self._wrong(column, "an object", value)
        return RowFields(value)

    def table(self, column: str) -> Mapping[str, Any]:
        """A JSON object; empty when the column is missing."""
        value = self._get(column, "an object", {})
        if not isinstance(value, dict):
            raise self._wrong(column, "an object", value)
        self._check_kept(column, value)
        return value

    def some(self, columns: Iterable[str]) -> dict[str, Any]:
        """Those of the columns that the row has."""
        found = {column: self.value(column) for column in columns if self.has(column)}
        for column, value in found.items():
            self._check_kept(column, value)
        return found

    def _turn(self, column: str, number: int, item: Any) -> Turn:
        at = f"column {self._name(column)}, turn {number}"
        if not isinstance(item, dict):
            raise RowError(f"{at}: expected an object, got {_JSON.get(type(item), 'null')}")
        role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
        if not isinstance(role, str) or role not in _ROLES:
            raise RowError(f"{at}: the role is {str(role)[:40]!r}, expected user, assistant or system")
        if not isinstance(content, str):
            raise RowError(f"{at}: expected a string as content, got {_JSON.get(type(content), 'null')}")
        return Turn(role=_ROLES[role], content=content)

    def _check_kept(self, column: str, value: Any) -> None:
        """RowError where a value cannot be written again as JSON (NaN, a date or bytes of a Parquet file)."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RowError(f"column {self._name(column)} holds what JSON cannot: {error}") from None

    def _get(self, column: str, expected: str, default: Any) -> Any:
        name = self.names.get(column, column)
        value = self.value(column)
        if value is not None:
            return value
        if default is not None:
            return default
        if name in self.values:
            raise RowError(f"column {self._name(column)}: expected {expected}, got null")
        raise RowError(f"no column {self._name(column)} ({expected}); {absent(self.values, name)}")

    def _name(self, column: str) -> str:
        return repr(self.names.get(column, column))

    def _wrong(self, column: str, expected: str, value: Any) -> RowError:
        got = _JSON.get(type(value), type(value).__name__)
        return RowError(f"column {self._name(column)}: expected {expected}, got {got}")
