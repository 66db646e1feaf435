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
from stepdpo.data.labelled import read_kto, read_stepwise
from stepdpo.data.math_shepherd import is_math_shepherd, read_math_shepherd
from stepdpo.data.preference_file import FIELDS, read_preference, require_pair
from stepdpo.data.prm800k import KEPT, is_prm800k, read_prm800k, read_prm800k_pairs
from stepdpo.data.problem_fields import COLUMNS, passed_over, read_problem
from stepdpo.data.step_dpo import read_step_dpo
from stepdpo.data.turns import asked, opened


class Format(Enum):
    """How rows are laid out."""

    AUTO = "auto"
    PREFERENCES = "preferences"
    STEP_DPO = "step_dpo"
    ULTRAINTERACT = "ultrainteract"
    TRL = "trl"
    SOLUTIONS = "solutions"
    CONVERSATIONS = "conversations"
    STEPWISE = "stepwise"
    KTO = "kto"
    MATH_SHEPHERD = "math_shepherd"
    PRM800K = "prm800k"
    PRM800K_PAIRS = "prm800k_pairs"


@dataclass(frozen=True)
class Layout:
    """The columns of a format and its reader."""

    needs: tuple[frozenset[str], ...]
    """A row is of this format when it has all columns of one of these sets."""
    uses: frozenset[str]
    """Every column that the reader looks at."""
    read: Callable[[RowFields, Counter[str]], Preference | Sequence[Preference]]
    """Makes the preference, or raises RowError; counts what was odd. Of rows that may hold several, all or none."""
    shape: Callable[[Mapping[str, Any]], bool] = lambda cells: True
    """What else must be so of a row for `auto`, where the names of the columns are those of others too."""


def detect(cells: Mapping[str, Any]) -> Format | None:
    """The first format all of whose needed columns the row has; TRL's without a prompt is told from its turns."""
    present = frozenset(cells)
    having = ((name, layout) for name, layout in LAYOUTS.items() if any(need <= present for need in layout.needs))
    found = next((name for name, layout in having if layout.shape(cells)), None)
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


def make(
    layout: Layout, values: Mapping[str, object], names: Mapping[str, str], odd: Counter[str]
) -> Sequence[Preference]:
    """What one row holds, mostly one preference, validated; RowError with the reason when it cannot be used."""
    made = layout.read(RowFields(values, names), odd)
    preferences = (made,) if isinstance(made, Preference) else made
    for preference in preferences:
        require_pair(preference)
    return preferences


def _preferences(cells: RowFields, odd: Counter[str]) -> Preference:
    preference = read_preference(cells)
    odd["without a rejected side"] += not preference.rejected
    return preference


def _ultrainteract(cells: RowFields, odd: Counter[str]) -> Preference:
    question, history = opened(cells.turns("trajectory"), "trajectory")
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
    question, history = asked(cells, before, "chosen")
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
    question, history = opened(turns, column)
    odd["with earlier turns of the assistant (read, not scored)"] += any(t.role == "assistant" for t in history)
    return Preference(question, prefix="", chosen=chosen, rejected=rejected, history=history, whole=True)


def _set(columns: str) -> frozenset[str]:
    return frozenset(columns.split())


def _sets(*columns: str) -> tuple[frozenset[str], ...]:
    return tuple(map(_set, columns))


SIDES = ("chosen", "rejected")
_STEP_DPO = _sets("prompt initial_reason_steps chosen rejected", "prompt full_chosen full_rejected")
_STEP_DPO_USES = _STEP_DPO[0] | _STEP_DPO[1] | {"answer", "dataset"}
_PRM800K_USES = frozenset({"question", "label", *KEPT})
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
    Format.SOLUTIONS: Layout(_SOLUTIONS, frozenset(COLUMNS), _solutions, lambda cells: "nodes" not in cells),
    Format.CONVERSATIONS: Layout(
        _sets("conversations", "messages"),
        _set("conversations messages system chosen rejected"),
        _conversations,
    ),
    Format.STEPWISE: Layout(_sets("prompt completions labels"), _set("prompt completions labels"), read_stepwise),
    Format.KTO: Layout(_sets("prompt completion label"), _set("prompt completion label"), read_kto),
    Format.MATH_SHEPHERD: Layout(_sets("input label"), _set("input label task"), read_math_shepherd, is_math_shepherd),
    Format.PRM800K: Layout(_sets("question label"), _PRM800K_USES, read_prm800k, is_prm800k),
    Format.PRM800K_PAIRS: Layout(_sets("question label"), _PRM800K_USES, read_prm800k_pairs, is_prm800k),
}
_FOREIGN = (
    (_set("problem nodes"), "trees that `stepdpo pairs` searched: set dataset=trees and dataset.path to the file"),
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
