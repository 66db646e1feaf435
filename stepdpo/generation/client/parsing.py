"""What every reply of a server must be. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_object(text: str) -> dict[str, Any]:
    """ValueError in a few words for anything else."""
    try:
        reply = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError("an answer that is not JSON") from None
    if not isinstance(reply, dict):
        raise ValueError("an answer that is no object")
    return reply


def positions_by_model(reply: Mapping[str, Any]) -> dict[str, int | None]:
    """Name -> positions, where told, of the models in a list."""
    entries = reply.get("data")
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("id"):
            room = entry.get("max_model_len")
            found[str(entry["id"])] = room if isinstance(room, int) else None
    return found


def _no_number(word: str) -> float:
    """Python reads NaN and Infinity, which are no JSON."""
    raise ValueError(word)
