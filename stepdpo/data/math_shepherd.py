"""Rows of Math-Shepherd (Wang et al. 2023, arXiv 2312.08935): steps labelled by whether roll-outs came right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stepdpo.core.steps import on_lines
from stepdpo.core.types import Mark, Preference
from stepdpo.data.fields import RowError, RowFields

TAG = "ки"
"""Stands in `input` behind every step, and in `label` there is `+` or `-` in its place."""
SIGNS = {"+": 1.0, "-": 0.0}
FIRST = re.compile(r"\bStep 1:")


def is_math_shepherd(cells: Mapping[str, Any]) -> bool:
    """Whether the two columns, whose names are those of many data sets, hold such text."""
    given = cells.get("input")
    return isinstance(given, str) and TAG in given and isinstance(cells.get("label"), str)


def read_math_shepherd(cells: RowFields, odd: Counter[str]) -> Preference:
    """The problem and one solution, each step right (`+`) or wrong (`-`); the whole is as right as its last step.

    The solution begins at the first `Step 1:`, and where there is none, behind the last question mark before the first
    tag. Tags in the problem are strays: they are taken off, and their signs with them. Labels may turn to right again.
    """
    parts = cells.text("input").split(TAG)
    if len(parts) == 1:
        raise RowError(f"column 'input': no step ends with {TAG!r}")
    values = _signs(parts, cells.text("label"))
    place, at = _beginning(parts)
    odd[f"problems with a stray {TAG!r} (taken off)"] += place > 0
    odd["solutions without 'Step 1:'"] += FIRST.match(parts[place], at) is None
    question = _without_tags([*parts[:place], parts[place][:at]])
    steps = [parts[place][at:], *parts[place + 1 :]]
    if steps[-1].strip():
        odd["solutions whose end has no label"] += 1
    else:
        steps.pop()
    texts = [step.strip() for step in steps]
    for number, text in enumerate(texts, start=1):
        if not text:
            raise RowError(f"column 'input': step {number} is empty")
    if not question.strip():
        raise RowError("column 'input': there is no problem before the solution")
    labels = [*values[place:], *[None] * (len(steps) - len(values[place:]))]
    whole, ends = on_lines(texts)
    return Preference(
        question=question.strip(),
        prefix="",
        chosen=whole,
        rejected="",
        whole=True,
        label=labels[-1],
        chosen_steps=tuple(map(Mark, ends, labels)),
        meta=cells.some(("task",)),
    )


def _without_tags(parts: Sequence[str]) -> str:
    """The parts as one text; of the two blanks around a tag one is left."""
    text = ""
    for part in parts:
        text += part[text.endswith(" ") and part.startswith(" ") :]
    return text


def _signs(parts: Sequence[str], label: str) -> list[float]:
    """The sign in the place of every tag: but for these, each of one character, `label` is `input`."""
    values, at = [], 0
    for number, part in enumerate(parts):
        if not label.startswith(part, at):
            raise RowError(f"column 'label' is not 'input' with signs: they part before tag {number + 1}")
        at += len(part)
        if number < len(parts) - 1:
            sign = label[at : at + 1]
            if sign not in SIGNS:
                raise RowError(f"column 'label': expected + or - at tag {number + 1}, got {sign!r}")
            values.append(SIGNS[sign])
            at += 1
    if at < len(label):
        raise RowError("column 'label' goes on behind the end of 'input'")
    return values


def _beginning(parts: Sequence[str]) -> tuple[int, int]:
    """Where the solution begins: the part, and the character in it."""
    for number, part in enumerate(parts):
        if first := FIRST.search(part):
            return number, first.start()
    at = parts[0].rfind("?") + 1
    if not at:
        raise RowError("column 'input': neither 'Step 1:' nor a question mark says where the solution begins")
    return 0, at
