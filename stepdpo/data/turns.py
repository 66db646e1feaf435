"""Which turn of a conversation is the question, and which ones come before the response."""

from __future__ import annotations

from collections.abc import Sequence

from stepdpo.core.types import Turn
from stepdpo.data.fields import RowError, RowFields


def asked(cells: RowFields, before: Sequence[Turn], side: str) -> tuple[str, tuple[Turn, ...]]:
    """What TRL's column `side` answers: the prompt, or the turns before it in a conversation that holds it."""
    prompt = cells.value("prompt")
    if isinstance(prompt, list):
        turns = cells.turns("prompt")
        if before and tuple(before) != turns:
            raise RowError(f"the turns before the last of {side!r} are not those of 'prompt'")
        return opened(turns, "prompt")
    if not before:
        return cells.text("prompt"), ()
    if prompt is not None and cells.text("prompt").strip() not in [t.content.strip() for t in before]:
        raise RowError(f"'prompt' is no turn of {side!r}")
    return opened(before, side)


def opened(turns: Sequence[Turn], column: str) -> tuple[str, tuple[Turn, ...]]:
    """The first turn of the user as the question, and the other turns, that of the system in front."""
    system, others = (turns[:1], turns[1:]) if turns and turns[0].role == "system" else ((), turns)
    if not others or others[0].role != "user" or others[-1].role != "user":
        raise RowError(f"column {column!r}: a conversation must begin and end with a turn of the user")
    if not others[0].content.strip():
        raise RowError(f"column {column!r}: the first turn is empty")
    return others[0].content, (*system, *others[1:])
