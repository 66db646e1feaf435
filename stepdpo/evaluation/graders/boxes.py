r"""Finding `\boxed{...}` in a text, in one pass whatever the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

OPENING = re.compile(r"\\f?box(?:ed)?\s*(?=\{)")
BRACE = re.compile(r"\\[\\{}]|[{}]")
LINK = re.compile(r"\b(?:and|or)\b")
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
MARKUP = re.compile(r"\\(?:text|textbf|mbox|mathrm|quad|qquad)\b|[${}\\()\[\],;.:*\s]")
BREAKS = re.compile(
    r"\b(?:answers?|final|so|thus|then|therefore|hence|wait|actually|not?|but|instead|correct|wrong|step|again|check|means|"
    r"gives|get|since|because)\b",
    re.IGNORECASE,
)
NEAR = 70
"""Characters between two boxes of one answer, at most: room for an "and" with a few words, not for an argument."""
LINK_WORDS = 5
"""Different words between two boxes, at most, where one of them is "and" or "or"; more are a sentence."""
LOOSE = 8
"""Characters between two boxes, punctuation and markup left out, from which on they are a formula and no mere link."""


@dataclass(frozen=True, slots=True)
class Box:
    """The content of one balanced box and where the box lies."""

    content: str
    start: int
    end: int
    """Index just after the closing brace."""


def boxes(text: str) -> list[Box]:
    r"""All balanced `\boxed{}` and `\fbox{}`, outermost only, in order; an unclosed one is skipped."""
    starts = {m.end(): m.start() for m in OPENING.finditer(text)}
    if not starts:
        return []
    found: list[Box] = []
    stack: list[int] = []
    for match in BRACE.finditer(text, min(starts)):
        token, at = match.group(), match.start()
        if token == "{":
            stack.append(at)
        elif token == "}" and stack:
            opening = stack.pop()
            if opening in starts:
                content = text[opening + 1 : at].strip()
                # Boxes within this one are closed by now, and last in the list. One that is all of it stands for it.
                while found and found[-1].start > starts[opening]:
                    inner = found.pop()
                    if content == text[inner.start : inner.end]:
                        content = inner.content
                found.append(Box(content, starts[opening], match.end()))
    return found


def last_boxes(text: str) -> list[Box]:
    r"""The last box, with those before it that belong to the same answer (`\boxed{1} and \boxed{2}`)."""
    found = boxes(text)
    group = found[-1:]
    for box in reversed(found[:-1]):
        if not _linked(text[box.end : group[0].start]):
            break
        group.insert(0, box)
    return [box for i, box in enumerate(group) if box.content not in {b.content for b in group[:i]}]


def _linked(between: str) -> bool:
    """Whether two boxes with this text between them are parts of one answer."""
    # Farther apart, or in another sentence, two boxes are a step's result and the answer, of which the last counts.
    if len(between) > NEAR or "\n\n" in between or re.search(r"\.\s|\.\.|…|\\l?dots", between):
        return False
    words = set(WORD.findall(between))
    if BREAKS.search(between):
        return False
    if LINK.search(between):
        return len(words) <= LINK_WORDS
    rest = MARKUP.sub("", between)
    return (
        not words
        and len(rest) < LOOSE
        and not re.search(r"[=<>]|\\(?:n?eq?|approx|implies|Rightarrow|to|l[et]|g[et])\b", between)
    )
