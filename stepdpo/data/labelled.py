"""Single responses with labels, as TRL lays them out: of a whole one (KTO), or of each of its steps (stepwise)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stepdpo.core.steps import on_lines
from stepdpo.core.types import Mark, Preference
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.turns import asked


def read_stepwise(cells: RowFields, odd: Counter[str]) -> Preference:
    """The steps `completions`, a line each unless white space parts them, each right or wrong by `labels`.

    The whole response is as right as its last step. A step that is neither cannot be told: others who make such rows
    write a neutral one as wrong.
    """
    completions = cells.items("completions", "a list of strings")
    labels = cells.items("labels", "a list of true or false")
    if len(completions) != len(labels):
        raise RowError(f"{len(completions)} completions with {len(labels)} labels")
    for number, text in enumerate(completions):
        if not isinstance(text, str) or not text.strip():
            raise RowError(f"column 'completions', step {number}: expected a string that is not empty")
    values = [_label(value, f"column 'labels', step {number}") for number, value in enumerate(labels)]
    whole, ends = on_lines(completions)
    return Preference(
        question=cells.text("prompt"),
        prefix="",
        chosen=whole,
        rejected="",
        whole=True,
        label=values[-1],
        chosen_steps=tuple(map(Mark, ends, values)),
    )


def read_kto(cells: RowFields, odd: Counter[str]) -> Preference:
    """One `completion`, right or wrong as a whole by `label`."""
    before, completion = cells.side("completion")
    question, history = asked(cells, before, "completion")
    label = _label(cells.value("label"), "column 'label'")
    return Preference(question, prefix="", chosen=completion, rejected="", history=history, whole=True, label=label)


def _label(value: Any, at: str) -> float:
    """1 or 0, of true or false or of these numbers."""
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise RowError(f"{at}: expected true or false, got {str(value)[:40]}")
    return float(value)
