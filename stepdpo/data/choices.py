"""Problems of which one of several options is the answer: the options below the question, a letter as the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from stepdpo.data.fields import RowError

ASKED = "Which of these is it? The answer is its letter."
"""Between the question and the options: a number in place of the letter would be graded as wrong."""
_LETTERED = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s*(.*)", re.DOTALL)


def with_options(question: str, options: Any, answer: Any) -> tuple[str, str]:
    """(the question with its options, the letter of the right one).

    `options` is a list of texts, with letters of their own (`A)21`, `(B) 3`) or without, or an object of `text` and
    `label`, two lists, as ARC has it. `answer` names the right one by its letter, by its place from 0, or by its text.
    Raises RowError where it names none of them, or two.
    """
    lettered = _lettered(options)
    shown = "\n".join(f"({letter}) {text}" for letter, text in lettered.items())
    return f"{question}\n{ASKED}\n{shown}", _letter(lettered, answer)


def _lettered(options: Any) -> dict[str, str]:
    """The options' texts by their letters."""
    if isinstance(options, Mapping) and "text" in options:
        texts, labels = options["text"], options.get("label")
    else:
        texts, labels = options, None
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(ascii_uppercase):
        raise RowError("options: expected a list of 2 to 26 texts")
    given = [str(text).strip() for text in texts]
    if isinstance(labels, list) and len(labels) == len(given):
        return dict(zip(map(str, labels), given, strict=True))
    found = [match for text in given if (match := _LETTERED.fullmatch(text))]
    own = [(match[1] or match[2]).upper() for match in found]
    # Only letters that follow one another: `a) b` may be a text, and a list that begins with it has no letters.
    if own == list(ascii_uppercase[: len(given)]):
        given = [match[3].strip() for match in found]
    return dict(zip(ascii_uppercase, given, strict=False))


def _letter(lettered: Mapping[str, str], answer: Any) -> str:
    letters, named = list(lettered), str(answer).strip()
    if (letter := named.strip("().: ").upper()) in lettered:
        return letter
    by_text = [letter for letter, text in lettered.items() if text == named]
    by_place = letters[int(named)] if named.isdecimal() and int(named) < len(letters) else None
    # A number is a place, as MMLU has it; the text of a number may be either, and neither is guessed.
    if by_place and (not by_text or isinstance(answer, int)):
        return by_place
    if len(by_text) == 1 and by_place in (None, by_text[0]):
        return by_text[0]
    what = "more than one" if by_text else "none"
    raise RowError(f"options: the answer {named[:40]!r} names {what} of {', '.join(letters)}")
