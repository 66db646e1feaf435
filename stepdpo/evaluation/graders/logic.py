"""Three-valued logic: True, False, and None for what only a formula reader can decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

Truth = bool | None
Leaf = Callable[[str, str], Truth]
"""Compares two formulas, prediction first; None where it does not know."""


def unknown(_prediction: str, _gold: str) -> None:
    """The leaf that never knows: with it a comparison costs no more than string handling."""


def every(verdicts: Iterable[Truth]) -> Truth:
    """False as soon as one is, else None if one is unknown."""
    result: Truth = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def some(verdicts: Iterable[Truth]) -> Truth:
    """True as soon as one is, else None if one is unknown."""
    result: Truth = False
    for verdict in verdicts:
        if verdict:
            return True
        if verdict is None:
            result = None
    return result


def cover(predictions: Sequence[str], golds: Sequence[str], same: Leaf) -> Truth:
    """Every prediction equals some gold, and every gold is met by some prediction."""
    table = {(p, g): same(p, g) for p in dict.fromkeys(predictions) for g in dict.fromkeys(golds)}
    met = (some(table[p, g] for p in predictions) for g in golds)
    meant = (some(table[p, g] for g in golds) for p in predictions)
    return every([every(met), every(meant)])
