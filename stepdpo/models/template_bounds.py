"""The operations of a chat template: what each may make is weighed before it is made, by `template_budget`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from stepdpo.models.template_budget import (
    LISTS,
    UNIT,
    beyond,
    length_of,
    listed,
    refuse_large,
    refuse_long,
    size_of,
    spend,
    weighed,
)

WIDEST = 10_000
"""Characters that one number is given in a format."""
_PADS = ("center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice", "round")
_MULTIPLIES = ("indent", "expandtabs", "translate", "wordwrap", "urlize", "tojson", "xmlattr", "replace")
_SLOW = ("pprint", "urlencode", "wordwrap", "urlize", "xmlattr", "striptags", "title", "wordcount")
_UNWRITTEN = ("attr", "default", "d", "is")
"""What may be asked of a namespace; whatever else would write it out."""
_FAR = re.compile(r"\d{5,}|\{[^{}]+\{|%[^%a-zA-Z]*\*")
"""A width of 10,000 or more in a format, or one that is worked out."""


def concat(pieces: Iterable[str]) -> str:
    """The text of a template, a macro or a block."""
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        refuse_long(length)
        kept.append(piece)
    spend(length // UNIT)
    return "".join(kept)


def called(function: Any, call: Callable[[], Any], given: Sequence[Any]) -> Any:
    """The value of a function, a macro or a method."""
    spend(1 + sum(map(length_of, given)))
    method = getattr(function, "__wrapped__", function)  # str.format is wrapped by the sandbox
    subject = getattr(method, "__self__", None)
    if isinstance(subject, str | bytes | int):
        if method.__name__ == "join" and given:
            given = [listed(given[0])]
            refuse_long(size_of(given[0]) + size_of(subject) * length_of(given[0]))
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
            subject = listed(subject)
            refuse_long(size_of(subject) + len(subject) * sum(map(size_of, given)))
        spend(1 + sum(map(length_of, (subject, *given))))
        if name not in _UNWRITTEN:
            for one in (subject, *given):
                weighed(one)
        _allow(name, subject, given)
        return _kept(function(*own, subject, *rest, **kwargs))

    return run


def _allow(name: str, subject: Any, given: Sequence[Any]) -> None:
    """UserError for a result that might be too long, before it is made."""
    size = size_of(subject)
    if name in _SLOW:
        spend(size // 10)
    if name in ("format", "format_map"):
        _allow_format(subject, given)
    elif name == "replace" and isinstance(subject, str) and all(isinstance(one, str) for one in given[:2]):
        for one, other in (given[:2], given[1::-1]):  # given by name, they may stand in any order
            refuse_long(size + subject.count(one) * len(other))
    elif name in _PADS:
        refuse_long(size + sum(map(_amount, given)))
    elif name in _MULTIPLIES:
        refuse_long((size + 1) * (1 + sum(map(_amount, given))))
    spend(1 + (size + sum(map(size_of, given))) // UNIT)


def _allow_format(form: Any, given: Sequence[Any]) -> None:
    text = form if isinstance(form, str) else str(form, "latin-1") if isinstance(form, bytes) else ""
    if _FAR.search(text):
        raise beyond(f"a width in the format {text[:40]!r}")
    refuse_long(len(text) + (text.count("{") + text.count("%")) * (WIDEST + sum(map(size_of, given))))


def _times(left: Any, right: Any) -> Any:
    for many, number in ((left, right), (right, left)):
        if isinstance(number, int):
            if isinstance(many, int):
                refuse_large(many.bit_length() + number.bit_length())
            elif not isinstance(many, float):
                refuse_long(size_of(many) * max(0, number))
    return _kept(operator.mul(left, right))


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        refuse_large(left.bit_length() * max(0, right))
    return operator.pow(left, right)


def _plus(left: Any, right: Any) -> Any:
    refuse_long(size_of(left) + size_of(right))
    return _kept(operator.add(left, right))


def _rest(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        weighed(right)
        _allow_format(left, [right])
    return _kept(operator.mod(left, right))


OPERATORS = {"*": _times, "**": _power, "+": _plus, "%": _rest}


def _kept(value: Any) -> Any:
    """What was made, if it may stay."""
    return weighed(value) if isinstance(value, (str, bytes, int, *LISTS)) else value


def _amount(value: Any) -> int:
    """How much longer a text may become by it: a width, or what is put in."""
    return abs(value) if isinstance(value, int) else size_of(value)
