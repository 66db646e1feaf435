"""Marks on texts: those of a scored part, and steps that cover it without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Mark, Preference


def within(marks: Sequence[Mark], start: int, length: int) -> tuple[Mark, ...]:
    """The marks of `text[start : start + length]`, of those of a text; what reaches beyond its end is cut there."""
    found: list[Mark] = []
    for mark in marks:
        end = mark.end - start
        if end > 0:
            found.append(Mark(min(end, length), mark.value))
        if end >= length:
            break
    return tuple(found)


def right_rest(preference: Preference) -> str:
    """What follows the chosen step, up to the first step of it that is known to be wrong (a value below 1/2)."""
    start = len(preference.prefix) + len(preference.chosen)
    before = 0
    for mark in preference.chosen_steps:
        if mark.end > start and mark.value is not None and mark.value < 0.5:
            return preference.chosen_rest[: max(0, before - start)]
        before = mark.end
    return preference.chosen_rest


def covering(marks: Sequence[Mark], context: str, side: str) -> tuple[Mark, ...]:
    """Steps from the beginning of a side to its end: the marked ones, then those that `Step k:` tells apart.

    `context` is what stands before the side; a step that begins there goes on. White space after the last mark
    belongs to its step.
    """
    done = marks[-1].end if marks else 0
    if marks and not side[done:].strip():
        return (*marks[:-1], Mark(len(side), marks[-1].value))
    head, steps = split_steps(context + side)
    ends = accumulate(map(len, steps), initial=len(head))
    found = (end - len(context) for end in ends)
    return (*marks, *(Mark(end) for end in found if done < end < len(side)), Mark(len(side)))
