"""Preferences as the rows of other programs: TRL's preference columns, and LLaMA-Factory's two layouts of them.

None of them has a place for the beginning that both sides share, so it stands in front of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from stepdpo.core.steps import final_answer_stated
from stepdpo.core.types import Preference, Turn
from stepdpo.data.preference_file import sides

CONVERSATIONS = "conversations, which this layout has no column for (left out)"
SINGLE = "without a rejected side (left out)"
EQUAL = "with equal sides once the steps before them are the same text (left out)"
CUT_OFF = "sides that stop before a final answer; others put an end of text behind each"
LOST: Mapping[str, Callable[[Preference], bool]] = {
    "where the shared steps end": lambda p: bool(p.prefix),
    "where the step ends, or what follows it": lambda p: bool(p.chosen_rest or p.rejected_rest),
    "labels of steps": lambda p: bool(p.chosen_steps or p.rejected_steps),
    "weights": lambda p: bool(p.chosen_weights or p.rejected_weights),
    "values": lambda p: p.chosen_value is not None or p.rejected_value is not None,
    "confidence": lambda p: p.confidence != 1,
    "meta": lambda p: bool(p.meta),
}
"""What a preference may hold beyond the layouts -> whether one does."""

Row = dict[str, Any]
Sides = tuple[str, str]


def _trl(preference: Preference, texts: Sides) -> Row | None:
    if preference.history:
        return None
    return {"prompt": preference.question, "chosen": texts[0], "rejected": texts[1]}


def _trl_conversational(preference: Preference, texts: Sides) -> Row:
    turns = [{"role": turn.role, "content": turn.content} for turn in _asked(preference)]
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
    return {"prompt": turns, "chosen": chosen, "rejected": rejected}


def _sharegpt(preference: Preference, texts: Sides) -> Row:
    names = {"user": "human", "assistant": "gpt"}
    system, *others = _asked(preference)
    if system.role != "system":
        system, others = Turn("system", ""), [system, *others]
    chosen, rejected = ({"from": "gpt", "value": text} for text in texts)
    turns = [{"from": names[turn.role], "value": turn.content} for turn in others]
    return {"conversations": turns, "system": system.content, "chosen": chosen, "rejected": rejected}


def _alpaca(preference: Preference, texts: Sides) -> Row | None:
    if preference.history:
        return None
    return {"instruction": preference.question, "input": "", "chosen": texts[0], "rejected": texts[1]}


LAYOUTS: Mapping[str, Callable[[Preference, Sides], Row | None]] = {
    "trl": _trl,
    "trl_conversational": _trl_conversational,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}


def preference_rows(
    preferences: Iterable[Preference], layout: str, level: str, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """A row for every preference that the layout can hold; `counts` says what was left out, and what is lost.

    `level`: at `instance` the sides go to the end of their solutions, at `step` to the end of the step. Of data without
    any rejected side the layout `alpaca` makes rows for supervised training.
    """
    known: Sequence[Preference] = list(preferences)
    alone = layout == "alpaca" and not any(preference.rejected for preference in known)
    answered = layout.startswith("trl") and any(preference.answer for preference in known)
    for preference in known:
        if not preference.rejected and not alone:
            counts[SINGLE] += 1
            continue
        chosen, rejected = (_side(preference, side, level) for side in ("chosen", "rejected"))
        row = LAYOUTS[layout](preference, (chosen, rejected))
        if row is None:
            counts[CONVERSATIONS] += 1
            continue
        if chosen == rejected:
            counts[EQUAL] += 1
            continue
        if alone:
            row = {"instruction": row["instruction"], "input": "", "output": chosen}
        if answered:
            row["answer"] = preference.answer  # in every row, or in none: readers want one set of columns
        counts[CUT_OFF] += sum(not preference.whole and not final_answer_stated(t) for t in (chosen, rejected) if t)
        for name, held in LOST.items():
            counts[_lost(name)] += held(preference)
        yield row


def lost(counts: Counter[str]) -> str:
    """One line on what the rows do not say of the preferences they were made of; empty where that is nothing."""
    found = {name: counts.pop(_lost(name), 0) for name in LOST}
    told = ", ".join(f"{name} ({count:,})" for name, count in found.items() if count)
    return f"lost, as there are no columns for it: {told}" if told else ""


def llamafactory_entry(layout: str, file: str, paired: bool) -> Mapping[str, Any]:
    """What LLaMA-Factory's dataset_info.json must say of a file; empty for other programs' layouts."""
    columns = {
        "sharegpt": {"messages": "conversations", "system": "system", "chosen": "chosen", "rejected": "rejected"},
        "alpaca": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    }.get(layout)
    if columns is None:
        return {}
    if not paired:
        return {"file_name": file, "columns": {"prompt": "instruction", "query": "input", "response": "output"}}
    return {"file_name": file, "ranking": True, "formatting": layout, "columns": columns}


def _asked(preference: Preference) -> list[Turn]:
    """All turns before the response, that of the system first."""
    system = [turn for turn in preference.history if turn.role == "system"]
    others = [turn for turn in preference.history if turn.role != "system"]
    return [*system, Turn("user", preference.question), *others]


def _side(preference: Preference, side: str, level: str) -> str:
    step, rest = sides(preference, side)
    if not step and side == "rejected":
        return ""
    return preference.prefix + step + (rest if level == "instance" else "")


def _lost(name: str) -> str:
    return f"lost: {name}"
