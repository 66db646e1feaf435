"""Rows of Math-Step-DPO-10K (Lai et al. 2024, arXiv 2406.18629)."""

from __future__ import annotations

import re
from collections import Counter

from stepdpo.core.types import Preference
from stepdpo.data.fields import RowError, RowFields

BEGINNING = re.compile(r"\s*Let's think step by step")


def read_step_dpo(cells: RowFields, odd: Counter[str]) -> Preference:
    """One preference of the columns prompt, initial_reason_steps, chosen, rejected, full_chosen, full_rejected.

    `full_*` continue the reasoning from the disputed step on, so the rest of a side is its `full_*` less the
    step. Where `full_*` holds the shared steps too, they are taken off. Where it does not continue the step,
    the rest is empty and that is counted. Without the step columns the continuation is the side. The shared
    steps and the steps themselves are never altered.
    """
    prefix = cells.text("initial_reason_steps", "")
    chosen, chosen_rest = _side(cells, "chosen", prefix, odd)
    rejected, rejected_rest = _side(cells, "rejected", prefix, odd)
    return Preference(
        question=cells.text("prompt"),
        prefix=prefix,
        chosen=chosen,
        rejected=rejected,
        chosen_rest=chosen_rest,
        rejected_rest=rejected_rest,
        answer=", ".join(cells.answers("answer")),
        meta=cells.some(("dataset",)),
    )


def _side(cells: RowFields, side: str, prefix: str, odd: Counter[str]) -> tuple[str, str]:
    """The step and what follows it."""
    column = f"full_{side}"
    if not cells.has(column):
        return cells.text(side), ""
    full = _continuation(cells.text(column), prefix, column, odd)
    if not cells.has(side):
        if not full.strip():
            raise RowError(f"column {column!r} begins like 'initial_reason_steps', but does not continue it")
        return full, ""
    step = cells.text(side)
    if full.startswith(step):
        return step, full[len(step) :]
    rest = _after(full, step)
    if rest is None:
        odd[f"{column} does not continue the step (its rest is left out)"] += 1
        return step, ""
    odd[f"{column} differs from the step in white space"] += 1
    return step, rest


def _continuation(full: str, prefix: str, column: str, odd: Counter[str]) -> str:
    """`full` without the shared steps, should it hold them; empty when it holds other ones."""
    if not prefix.strip():
        return full
    if full.startswith(prefix):
        rest: str | None = full[len(prefix) :]
    elif BEGINNING.match(full):
        rest = _after(full, prefix)
    else:
        return full
    if rest:
        odd[f"{column} held the shared steps (taken off)"] += 1
    return rest or ""


def _after(full: str, start: str) -> str | None:
    """What follows `start` at the beginning of `full` when white space is not told apart, else None."""
    # `(?!\w)`: the last word must end there, else "Step 1" would be found at the front of "Step 12".
    words = [re.escape(word) for word in start.split()]
    match = re.match(r"\s*" + r"\s+".join(words) + r"(?!\w)", full)
    return full[match.end() :] if match else None
