"""Parses the decision in a judge's reply. Nothing is guessed: what is no decision is refused with a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass

CORRECT, NEUTRAL, INCORRECT = "correct", "neutral", "incorrect"
HEADING = re.compile(r"final\s+decision", re.IGNORECASE)
# The forms that models write: bold, lists, code, `:`, `=` or a dash. "partially correct" is none of the three labels.
ENTRY = re.compile(r"step[\s*_`#]*(\d+)[\s*_`]*[:=\u2013-][\s*_`]*(incorrect|correct|neutral)\b", re.IGNORECASE)


class Unreadable(ValueError):
    """A reply without a decision; the message says why, in a few words that many replies share."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The first wrong step, from 0; None where every step was found right."""

    error: int | None


def read_decision(reply: str, steps: int, neutral_is_error: bool = False) -> Decision:
    """The decision about a solution of so many steps, which were shown to the judge as step 1, 2, ...

    Counts is what follows the last "final decision". The labels up to the first wrong step must be there, one a step;
    those after it are ignored.
    """
    # The last heading: a model that thinks aloud, or corrects itself, writes several.
    headings = list(HEADING.finditer(reply))
    if not headings:
        raise Unreadable("no decision")
    found = [(int(number), word.lower()) for number, word in ENTRY.findall(reply[headings[-1].end() :])]
    if not found:
        raise Unreadable("no decision")
    labels: dict[int, str] = {}
    for number, word in found:
        if not 1 <= number <= steps:
            raise Unreadable("a step that is not there")
        if labels.setdefault(number, word) != word:
            raise Unreadable("two labels for one step")
    wrong = {INCORRECT, NEUTRAL} if neutral_is_error else {INCORRECT}
    first = min((number for number, word in labels.items() if word in wrong), default=None)
    if any(number not in labels for number in range(1, first or steps + 1)):
        raise Unreadable("a step without a label")
    return Decision(None if first is None else first - 1)
