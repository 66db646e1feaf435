"""How much a chat template may do for one prompt: steps are counted, and values weighed, before they are made.

Never by the clock: what is refused is refused on every machine, and by every process of a run.
"""

from __future__ import annotations

import operator
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from jinja2.utils import Namespace

from stepdpo.core.errors import UserError

STEPS = 1_000_000
"""Turns of loops, calls, filters, and thousands of characters gone through."""
LONGEST = 10_000_000
"""Characters of a text, or of a list if it were written out."""
DEEPEST = 50
"""Lists within lists."""
WIDEST = 10_000
"""Characters that one number is given in a format."""
BITS = 100_000
"""Of a whole number: 30,000 digits."""
UNIT = 1000
"""Characters that cost a step."""

_PADS = ("center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice", "round")
_MULTIPLIES = ("indent", "expandtabs", "translate", "wordwrap", "urlize", "tojson", "xmlattr", "replace")
_SLOW = ("pprint", "urlencode", "wordwrap", "urlize", "xmlattr", "striptags", "title", "wordcount")
_UNWRITTEN = ("attr", "default", "d", "is")
"""What may be asked of a namespace; whatever else would write it out."""
_LISTS = (list, tuple, dict, set, frozenset, deque)
_FAR = re.compile(r"\d{5,}|\{[^{}]+\{|%[^%a-zA-Z]*\*")
"""A width of 10,000 or more in a format, or one that is worked out."""


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
    spend(1 + _size(value) // UNIT)
    return value


def weighed(value: Any) -> Any:
    """A value that is kept or written."""
    if type(value) is str and len(value) < UNIT:  # nearly all are
        spend(1)
        return value
    if isinstance(value, Namespace):
        raise beyond("a namespace is written out")
    _refuse_long(_size(value))
    return costed(value)


def counted(values: Any, cost: int) -> Any:
    """What a loop goes through."""
    try:
        spend(cost * len(values))
        return values
    except TypeError:
        return _each(iter(values), cost)


COUNTERS = (spend, costed, weighed, counted)


def concat(pieces: Iterable[str]) -> str:
    """The text of a template, a macro or a block."""
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        _refuse_long(length)
        kept.append(piece)
    spend(length // UNIT)
    return "".join(kept)


def called(function: Any, call: Callable[[], Any], given: Sequence[Any]) -> Any:
    """The value of a function, a macro or a method."""
    spend(1 + sum(map(_length, given)))
    method = getattr(function, "__wrapped__", function)  # str.format is wrapped by the sandbox
    subject = getattr(method, "__self__", None)
    if isinstance(subject, str | bytes | int):
        if method.__name__ == "join" and given:
            given = [_listed(given[0])]
            _refuse_long(_size(given[0]) + _size(subject) * _length(given[0]))
            return _kept(method(*given))
        _allow(method.__name__, subject, given)
    return _kept(call())


def filtered(name: str, function: Any) -> Any:
    """A filter or a test that weighs what it is given, and what it gives."""
    before = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        own, subject, rest = args[:before], args[before], args[before + 1 :]
        given = [*rest, *kwargs.values()]
        if name == "join":
            subject = _listed(subject)
            _refuse_long(_size(subject) + len(subject) * sum(map(_size, given)))
        spend(1 + sum(map(_length, (subject, *given))))
        if name not in _UNWRITTEN:
            for one in (subject, *given):
                weighed(one)
        _allow(name, subject, given)
        return _kept(function(*own, subject, *rest, **kwargs))

    return run


def _allow(name: str, subject: Any, given: Sequence[Any]) -> None:
    """UserError for a result that might be too long, before it is made."""
    size = _size(subject)
    if name in _SLOW:
        spend(size // 10)
    if name in ("format", "format_map"):
        _allow_format(subject, given)
    elif name == "replace" and isinstance(subject, str) and all(isinstance(one, str) for one in given[:2]):
        for one, other in (given[:2], given[1::-1]):  # given by name, they may stand in any order
            _refuse_long(size + subject.count(one) * len(other))
    elif name in _PADS:
        _refuse_long(size + sum(map(_amount, given)))
    elif name in _MULTIPLIES:
        _refuse_long((size + 1) * (1 + sum(map(_amount, given))))
    spend(1 + (size + sum(map(_size, given))) // UNIT)


def _allow_format(form: Any, given: Sequence[Any]) -> None:
    text = form if isinstance(form, str) else str(form, "latin-1") if isinstance(form, bytes) else ""
    if _FAR.search(text):
        raise beyond(f"a width in the format {text[:40]!r}")
    _refuse_long(len(text) + (text.count("{") + text.count("%")) * (WIDEST + sum(map(_size, given))))


def _times(left: Any, right: Any) -> Any:
    for many, number in ((left, right), (right, left)):
        if isinstance(number, int):
            if isinstance(many, int):
                _refuse_large(many.bit_length() + number.bit_length())
            elif not isinstance(many, float):
                _refuse_long(_size(many) * max(0, number))
    return _kept(operator.mul(left, right))


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _refuse_large(left.bit_length() * max(0, right))
    return operator.pow(left, right)


def _plus(left: Any, right: Any) -> Any:
    _refuse_long(_size(left) + _size(right))
    return _kept(operator.add(left, right))


def _rest(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        weighed(right)
        _allow_format(left, [right])
    return _kept(operator.mod(left, right))


OPERATORS = {"*": _times, "**": _power, "+": _plus, "%": _rest}


def _kept(value: Any) -> Any:
    """What was made, if it may stay."""
    return weighed(value) if isinstance(value, (str, bytes, int, *_LISTS)) else value


def _refuse_long(size: int) -> None:
    if size > LONGEST:
        raise beyond(f"a text or list of more than {LONGEST:,} characters")


def _refuse_large(bits: int) -> None:
    if bits > BITS:
        raise beyond(f"a number of more than {BITS:,} bits")


def _size(value: Any) -> int:
    return len(value) if type(value) is str else _size_and_depth(value)[0]


def _size_and_depth(value: Any) -> tuple[int, int]:
    """Characters as if it were written out, however often the same list lies within it; and lists within lists."""
    if isinstance(value, str | bytes):
        return len(value), 0
    if isinstance(value, int):
        return value.bit_length() // 3 + 1, 0
    if not isinstance(value, _LISTS):
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
    _refuse_long(size)
    _work.sizes[id(value)] = (value, size, depth + 1)
    return size, depth + 1


def _amount(value: Any) -> int:
    """How much longer a text may become by it: a width, or what is put in."""
    return abs(value) if isinstance(value, int) else _size(value)


def _length(value: Any) -> int:
    """Of what may be gone through one by one."""
    try:
        return 0 if isinstance(value, str | bytes) else len(value)
    except TypeError:
        return 0


def _listed(values: Any) -> Any:
    """A list of what can only be gone through once."""
    return list(_each(iter(values), 1)) if isinstance(values, Iterator) else values


def _each(values: Iterator[Any], cost: int) -> Iterator[Any]:
    for value in values:
        spend(cost)
        yield value
