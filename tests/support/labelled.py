"""Preferences about which everything is known: labels of steps and of responses, weights, values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stepdpo.core.types import Mark, Preference
from stepdpo.data.preference_file import sides, write_preferences
from stepdpo.data.step_marks import covering
from stepdpo.tinymath.problems import problems
from support.corrupted import corrupt


def labelled(preference: Preference, wrong: int) -> Preference:
    """Right steps on the chosen side, and the rejected one wrong from its own step on."""
    texts = {side: preference.prefix + "".join(sides(preference, side)) for side in ("chosen", "rejected")}
    at = len(preference.prefix)
    marks = {side: covering((), "", text) for side, text in texts.items()}
    return replace(
        preference,
        chosen_steps=tuple(Mark(mark.end, 1.0) for mark in marks["chosen"]),
        rejected_steps=tuple(
            Mark(mark.end, 1.0 if mark.end <= at else 0.0 if before < at + 1 else None)
            for before, mark in zip((0, *(m.end for m in marks["rejected"])), marks["rejected"], strict=False)
        ),
        rejected_weights=(Mark(at + 1, 1.0), Mark(at + 4, 0.5)),
        chosen_value=1.0,
        rejected_value=-1 + 0.25 * (wrong % 3),
    )


def write(path: Path, count: int = 7, each: int = 3) -> Path:
    """Step pairs of a few problems, several of each."""
    pairs = [
        labelled(corrupt(problem.question, problem.solution, number), number)
        for problem in problems("preference", count)
        for number in range(each)
    ]
    write_preferences(pairs, path)
    return path
