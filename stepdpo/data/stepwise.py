"""Labelled steps as the rows of TRL's stepwise supervision: {prompt, completions, labels}, each label true or false."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from stepdpo.core.steps import on_lines
from stepdpo.core.types import Mark, Preference
from stepdpo.data.preference_file import sides

CUT = "responses cut before their first step without a label"
UNLABELLED = "responses without a labelled first step (left out)"
CONVERSATIONS = "responses within a conversation (left out)"
UNPARTED = "responses whose steps no white space parts, or without text (left out)"
AGAIN = "the same response again (left out)"


def stepwise_rows(
    preferences: Iterable[Preference], threshold: float, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """A row for every response with labelled steps, both sides of a pair; `counts` says what was cut or left out.

    A step is right where its label is not below `threshold`. There is no word for a step that nobody labelled, so a
    response ends before it. Format `stepwise` gives the same texts and labels back.
    """
    seen: set[str] = set()
    for preference in preferences:
        for side in ("chosen", "rejected") if preference.rejected else ("chosen",):
            text = "".join((preference.prefix, *sides(preference, side)))
            marks: tuple[Mark, ...] = getattr(preference, f"{side}_steps")
            labelled = list(takewhile(lambda mark: mark.value is not None, marks))
            if why := CONVERSATIONS if preference.history else "" if labelled else UNLABELLED:
                counts[why] += 1
                continue
            end = labelled[-1].end
            if not text[end:].strip():
                end = len(text)  # white space after the last step belongs to it
            completions = completions_of(text[:end], [mark.end for mark in labelled[:-1]])
            row = {
                "prompt": preference.question,
                "completions": completions,
                "labels": [mark.value is not None and mark.value >= threshold for mark in labelled],
            }
            if not completions:
                counts[UNPARTED] += 1
            elif (key := repr(row)) in seen:
                counts[AGAIN] += 1
            else:
                seen.add(key)
                counts[CUT] += end < len(text)
                yield row


def completions_of(text: str, ends: Sequence[int]) -> list[str]:
    """The stretches of a text, without the line breaks that the reader puts between two; none where it would differ."""
    parts = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    for number in range(1, len(parts)):
        before, after = parts[number - 1], parts[number]
        if after[:1] == "\n" and not after[1:2].isspace() and not before[-1:].isspace():
            parts[number] = after[1:]
        elif before[-1:] == "\n" and not before[-2:-1].isspace() and not after[:1].isspace():
            parts[number - 1] = before[:-1]
    return parts if all(part.strip() for part in parts) and on_lines(parts)[0] == text else []
