"""Mistakes a user can mend, and the words that help."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's control, direction and half characters, and its ends of lines."""


class UserError(Exception):
    """Something the user must mend: shown without a traceback, exit code 2."""


class Outage(Exception):
    """Something outside failed in the midst of the work: no traceback, and what was finished is kept."""


LISTED = 24
"""Words that are listed; of more than that, the beginning."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that names the known word most like `word`, or lists what there is."""
    options = sorted(set(known) - {word})  # what was just refused is no advice
    # Below difflib's own 0.6: names of options are short, and one wrong letter weighs much in them.
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = ", ..." if len(options) > LISTED else ""
    return "known: " + ", ".join(options[:LISTED]) + more if options else "there are none"


def printable(text: str) -> str:
    r"""Text that is safe on a terminal: control and direction characters are spelt out (`\x1b`), lines kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSAFE else ascii(c)[1:-1] for c in text)
