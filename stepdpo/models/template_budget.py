"""What a chat template may cost for one prompt: steps are counted and values weighed.

Never by the clock: what is refused is refused on every machine, and by every process of a run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from jinja2.utils import Namespace

from stepdpo.core.errors import UserError

STEPS = 1_000_000
"""Turns of loops, calls, filters, and thousands of characters gone through."""
LONGEST = 10_000_000
"""Characters of a text, or of a list if it were written out."""
DEEPEST = 50
"""Lists within lists."""
BITS = 100_000
"""Of a whole number: 30,000 digits."""
UNIT = 1000
"""Characters that cost a step."""

LISTS = (list, tuple, dict, set, frozenset, deque)


class _Work(threading.local):
    """What the prompt that a thread renders has cost."""

    def __init__(self) -> None:
        self.steps = 0
        # Lists and the like that were weighed, by identity, with size and depth. Kept alive: none is taken for another.
        self.sizes: dict[int, tuple[Any, int, int]] = {}


_work = _Work()


def begin() -> None:
    """Of a prompt."""
    _work.steps, _work.sizes = 0, {}


def beyond(what: str) -> UserError:
    """The error of a template, whatever row it is given."""
    return UserError(f"goes beyond what a chat template may do: {what}")


def spend(steps: int) -> str:
    """So many steps more."""
    _work.steps += steps
    if _work.steps > STEPS:
        raise beyond(f"more than {STEPS:,} steps for one prompt")
    return ""


def costed(value: Any) -> Any:
    """A value that is gone through."""
    spend(1 + size_of(value) // UNIT)
    return value


def weighed(value: Any) -> Any:
    """A value that is kept or written."""
    if type(value) is str and len(value) < UNIT:  # nearly all are
        spend(1)
        return value
    if isinstance(value, Namespace):
        raise beyond("a namespace is written out")
    refuse_long(size_of(value))
    return costed(value)


def counted(values: Any, cost: int) -> Any:
    """What a loop goes through."""
    try:
        spend(cost * len(values))
        return values
    except TypeError:
        return _each(iter(values), cost)


COUNTERS = (spend, costed, weighed, counted)


def refuse_long(size: int) -> None:
    if size > LONGEST:
        raise beyond(f"a text or list of more than {LONGEST:,} characters")


def refuse_large(bits: int) -> None:
    if bits > BITS:
        raise beyond(f"a number of more than {BITS:,} bits")


def size_of(value: Any) -> int:
    return len(value) if type(value) is str else _size_and_depth(value)[0]


def length_of(value: Any) -> int:
    """Of what may be gone through one by one."""
    try:
        return 0 if isinstance(value, str | bytes) else len(value)
    except TypeError:
        return 0


def listed(values: Any) -> Any:
    """A list of what can only be gone through once."""
    return list(_each(iter(values), 1)) if isinstance(values, Iterator) else values


def _each(values: Iterator[Any], cost: int) -> Iterator[Any]:
    for value in values:
        spend(cost)
        yield value


def _size_and_depth(value: Any) -> tuple[int, int]:
    """Characters as if it were written out, however often the same list lies within it; and lists within lists."""
    if isinstance(value, str | bytes):
        return len(value), 0
    if isinstance(value, int):
        return value.bit_length() // 3 + 1, 0
    if not isinstance(value, LISTS):
        return 1, 0
    if known := _work.sizes.get(id(value)):
        return known[1:]
    size, depth = len(value), 0
    spend(1 + len(value) // 10)
    for one in (*value, *(value.values() if isinstance(value, dict) else ())):
        if isinstance(one, Namespace):
            raise beyond("a list of namespaces")  # which may grow once they have been weighed
        more, below = _size_and_depth(one)
        size, depth = size + more, max(depth, below)
    if depth >= DEEPEST:
        raise beyond(f"more than {DEEPEST} lists within each other")
    refuse_long(size)
    _work.sizes[id(value)] = (value, size, depth + 1)
    return size, depth + 1
