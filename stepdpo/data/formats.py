"""The formats of preference data: which columns they have, and how a row becomes a Preference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from stepdpo.core.types import Preference, Turn
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.preference_file import FIELDS, read_preference, require_pair
from stepdpo.data.problem_fields import COLUMNS, read_problem
from stepdpo.data.step_dpo import read_step_dpo


class Format(Enum):
    """How rows are laid out."""

    AUTO = "auto"
    PREFERENCES = "preferences"
    STEP_DPO = "step_dpo"
    ULTRAINTERACT = "ultrainteract"
    TRL = "trl"
    SOLUTIONS = "solutions"


@dataclass(frozen=True)
class Layout:
    """The columns of a format and its reader."""

    needs: tuple[frozenset[str], ...]
    """A row is of this format when it has all columns of one of these sets."""
    uses: frozenset[str]
    """Every column that the reader looks at."""
    read: Callable[[RowFields, Counter[str]], Preference]
    """Makes the preference, or raises RowError; counts what was odd."""


def detect(columns: Iterable[str]) -> Format | None:
    """The first format all of whose needed columns are there."""
    present = frozenset(columns)
    return next((name for name, layout in LAYOUTS.items() if any(need <= present for need in layout.needs)), None)


def make(layout: Layout, values: Mapping[str, object], names: Mapping[str, str], odd: Counter[str]) -> Preference:
    """The preference of one row, validated; RowError with the reason when it cannot be used."""
    preference = layout.read(RowFields(values, names), odd)
    require_pair(preference)
    return preference


def _preferences(cells: RowFields, odd: Counter[str]) -> Preference:
    preference = read_preference(cells)
    odd["without a rejected side"] += not preference.rejected
    return preference


def _ultrainteract(cells: RowFields, odd: Counter[str]) -> Preference:
    question, history = _conversation(cells, "trajectory")
    meta = cells.some(("id", "parent_id", "task", "dataset"))
    turn = re.search(r"_(\d+)_(\d+)$", str(meta.get("id", "")))
    if turn:
        meta["turn"] = int(turn[2])
    meta["length"] = len(history) + 1
    chosen, rejected = cells.text("chosen"), cells.text("rejected")
    return Preference(question, prefix="", chosen=chosen, rejected=rejected, history=history, whole=True, meta=meta)


def _trl(cells: RowFields, odd: Counter[str]) -> Preference:
    history: tuple[Turn, ...] = ()
    if isinstance(cells.values.get(cells.names.get("prompt", "prompt")), list):
        question, history = _conversation(cells, "prompt")
    else:
        question = cells.text("prompt")
    return Preference(
        question=question,
        prefix="",
        chosen=_message(cells, "chosen"),
        rejected=_message(cells, "rejected"),
        answer=", ".join(cells.answers("answer")),
        history=history,
        whole=True,
    )


def _solutions(cells: RowFields, odd: Counter[str]) -> Preference:
    stated = read_problem(cells)
    if not stated.solution.strip():
        raise RowError("no solution to learn from: neither 'solution' nor 'output', nor an 'answer' with '####'")
    odd["without a final answer"] += not stated.answers
    answer = ", ".join(stated.answers)
    return Preference(
        question=stated.question, prefix="", chosen=stated.solution, rejected="", answer=answer, whole=True
    )


def _conversation(cells: RowFields, column: str) -> tuple[str, tuple[Turn, ...]]:
    """The first turn of a conversation as the question, and the other turns."""
    turns = cells.turns(column)
    name = cells.names.get(column, column)
    if not turns or turns[0].role != "user" or turns[-1].role != "user":
        raise RowError(f"column {name!r}: a conversation must begin and end with a turn of the user")
    if not turns[0].content.strip():
        raise RowError(f"column {name!r}: the first turn is empty")
    return turns[0].content, turns[1:]


def _message(cells: RowFields, column: str) -> str:
    """A side as a string, or as one turn of the assistant."""
    name = cells.names.get(column, column)
    if not isinstance(cells.values.get(name), list):
        return cells.text(column)
    turns = cells.turns(column)
    if len(turns) != 1 or turns[0].role != "assistant" or not turns[0].content.strip():
        raise RowError(f"column {name!r}: expected a string, or one turn of the assistant that is not empty")
    return turns[0].content


def _set(columns: str) -> frozenset[str]:
    return frozenset(columns.split())


def _sets(*columns: str) -> tuple[frozenset[str], ...]:
    return tuple(map(_set, columns))


_STEP_DPO = _sets("prompt initial_reason_steps chosen rejected", "prompt full_chosen full_rejected")
_STEP_DPO_USES = _STEP_DPO[0] | _STEP_DPO[1] | {"answer", "dataset"}
_SOLUTIONS = _sets("question answer", "question solution", "problem solution", "instruction output")
# In the order in which they are tried, the more special first: `step_dpo` rows have all the columns of `trl`, and
# preferences may have the answer that tells `solutions`.
LAYOUTS: Mapping[Format, Layout] = {
    Format.PREFERENCES: Layout(_sets("question chosen rejected"), frozenset(FIELDS), _preferences),
    Format.ULTRAINTERACT: Layout(
        _sets("trajectory chosen rejected"),
        _set("trajectory chosen rejected id parent_id task dataset"),
        _ultrainteract,
    ),
    Format.STEP_DPO: Layout(_STEP_DPO, _STEP_DPO_USES, read_step_dpo),
    Format.TRL: Layout(_sets("prompt chosen rejected"), _set("prompt chosen rejected answer"), _trl),
    Format.SOLUTIONS: Layout(_SOLUTIONS, frozenset(COLUMNS), _solutions),
}
