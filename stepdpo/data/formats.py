"""The formats of preference data: which columns they have, and how a row becomes a Preference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any

from stepdpo.core.types import Preference, Turn
from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.preference_file import FIELDS, read_preference, require_pair
from stepdpo.data.problem_fields import COLUMNS, passed_over, read_problem
from stepdpo.data.step_dpo import read_step_dpo


class Format(Enum):
    """How rows are laid out."""

    AUTO = "auto"
    PREFERENCES = "preferences"
    STEP_DPO = "step_dpo"
    ULTRAINTERACT = "ultrainteract"
    TRL = "trl"
    SOLUTIONS = "solutions"
    CONVERSATIONS = "conversations"


@dataclass(frozen=True)
class Layout:
    """The columns of a format and its reader."""

    needs: tuple[frozenset[str], ...]
    """A row is of this format when it has all columns of one of these sets."""
    uses: frozenset[str]
    """Every column that the reader looks at."""
    read: Callable[[RowFields, Counter[str]], Preference]
    """Makes the preference, or raises RowError; counts what was odd."""


def detect(cells: Mapping[str, Any]) -> Format | None:
    """The first format all of whose needed columns the row has; TRL's without a prompt is told from its turns."""
    present = frozenset(cells)
    found = next((name for name, layout in LAYOUTS.items() if any(need <= present for need in layout.needs)), None)
    if found is None and all(isinstance(cells.get(side), list) for side in SIDES):
        return Format.TRL
    return found


def unreadable(columns: Iterable[str]) -> str:
    """What rows of no format are, by the name they are known under; empty for rows that nobody knows."""
    present = frozenset(columns)
    return next((words for needs, words in _FOREIGN if needs <= present), "")


def misspelt(columns: Iterable[str], wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(a column that no format reads, the wanted one that it must mean), where the wanted one is not there itself."""
    present = frozenset(columns)
    known = frozenset().union(*(layout.uses for layout in LAYOUTS.values()))
    for name in sorted(frozenset(wanted) - present):
        for close in get_close_matches(name, sorted(present - known), n=1, cutoff=0.85):
            yield close, name


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
    question, history = _opened(cells.turns("trajectory"), "trajectory")
    meta = cells.some(("id", "parent_id", "task", "dataset"))
    turn = re.search(r"_(\d+)_(\d+)$", str(meta.get("id", "")))
    if turn:
        meta["turn"] = int(turn[2])
    meta["length"] = len(history) + 1
    chosen, rejected = cells.text("chosen"), cells.text("rejected")
    return Preference(question, prefix="", chosen=chosen, rejected=rejected, history=history, whole=True, meta=meta)


def _trl(cells: RowFields, odd: Counter[str]) -> Preference:
    before, chosen = cells.side("chosen")
    other, rejected = cells.side("rejected")
    if before != other:
        raise RowError("chosen and rejected differ before their last turns")
    question, history = _asked(cells, before)
    return Preference(
        question=question,
        prefix="",
        chosen=chosen,
        rejected=rejected,
        answer=", ".join(cells.answers("answer")),
        history=history,
        whole=True,
    )


def _solutions(cells: RowFields, odd: Counter[str]) -> Preference:
    stated = read_problem(cells)
    if not stated.solution.strip():
        raise RowError("no solution to learn from: neither 'solution' nor 'output', nor an 'answer' with '####'")
    odd["without a final answer"] += not stated.answers
    odd.update(f"column {column!r} is ignored beside {used!r}" for column, used in passed_over(cells))
    answer = ", ".join(stated.answers)
    return Preference(
        question=stated.question, prefix="", chosen=stated.solution, rejected="", answer=answer, whole=True
    )


def _conversations(cells: RowFields, odd: Counter[str]) -> Preference:
    column = next((c for c in ("conversations", "messages") if cells.has(c)), "conversations")
    turns = cells.turns(column)
    if system := cells.text("system", ""):
        turns = (Turn("system", system), *(turn for turn in turns if turn.role != "system"))
    rejected = ""
    if cells.has("chosen") or cells.has("rejected"):
        (_, chosen), (_, rejected) = cells.side("chosen"), cells.side("rejected")
    else:
        if not turns or turns[-1].role != "assistant" or not turns[-1].content.strip():
            raise RowError(f"column {column!r}: the last turn must be the assistant's, and not empty")
        turns, chosen = turns[:-1], turns[-1].content
    question, history = _opened(turns, column)
    odd["with earlier turns of the assistant (read, not scored)"] += any(t.role == "assistant" for t in history)
    return Preference(question, prefix="", chosen=chosen, rejected=rejected, history=history, whole=True)


def _asked(cells: RowFields, before: Sequence[Turn]) -> tuple[str, tuple[Turn, ...]]:
    """What TRL's sides answer: the prompt, or the turns before them in a conversation that holds it."""
    prompt = cells.value("prompt")
    if isinstance(prompt, list):
        turns = cells.turns("prompt")
        if before and tuple(before) != turns:
            raise RowError("the turns before the last of 'chosen' are not those of 'prompt'")
        return _opened(turns, "prompt")
    if not before:
        return cells.text("prompt"), ()
    if prompt is not None and cells.text("prompt").strip() not in [t.content.strip() for t in before]:
        raise RowError("'prompt' is no turn of 'chosen'")
    return _opened(before, "chosen")


def _opened(turns: Sequence[Turn], column: str) -> tuple[str, tuple[Turn, ...]]:
    """The first turn of the user as the question, and the other turns, that of the system in front."""
    system, others = (turns[:1], turns[1:]) if turns and turns[0].role == "system" else ((), turns)
    if not others or others[0].role != "user" or others[-1].role != "user":
        raise RowError(f"column {column!r}: a conversation must begin and end with a turn of the user")
    if not others[0].content.strip():
        raise RowError(f"column {column!r}: the first turn is empty")
    return others[0].content, (*system, *others[1:])


def _set(columns: str) -> frozenset[str]:
    return frozenset(columns.split())


def _sets(*columns: str) -> tuple[frozenset[str], ...]:
    return tuple(map(_set, columns))


SIDES = ("chosen", "rejected")
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
    Format.CONVERSATIONS: Layout(
        _sets("conversations", "messages"),
        _set("conversations messages system chosen rejected"),
        _conversations,
    ),
}
_FOREIGN = (
    (
        _set("prompt completion label"),
        "rows of KTO, one response and a label each: `algo=kto` takes pairs here, and uses "
        "both sides of each by itself",
    ),
    (_set("prompt completions labels"), "labels of steps, as for a process reward model: make pairs of them first"),
    (
        _set("prompt completion"),
        "prompts with their completions, for supervised training: set format=solutions and "
        "columns={question: prompt, solution: completion}",
    ),
    *(
        (
            _set(columns),
            "answers of a model, which are graded by `stepdpo grade FILE`; pairs are made by `stepdpo pairs`",
        )
        for columns in ("response answer", "response answers", "response gold", "prediction answer", "prediction gold")
    ),
    (
        _set("chosen rejected"),
        "pairs without a column for the prompt: nobody can tell where it ends within the sides; "
        "give it as `prompt`, or the sides as lists of turns",
    ),
)
"""Columns -> what the rows are that have them, and what to do: the more special first."""
