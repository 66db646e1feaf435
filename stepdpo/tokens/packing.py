"""Which pairs of an update are merged into one tree: those of one problem, as many as fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from stepdpo.tokens.token_tree import Ints, Path
from stepdpo.tokens.trie import shared_length


@dataclass(frozen=True, slots=True)
class Bundle:
    """Pairs that share one tree."""

    members: tuple[int, ...]
    """Places in the list that was bundled."""
    size: int
    """Tokens of the tree, shared ones counted once."""


def bundle(pairs: Sequence[Sequence[Path]], budget: int) -> list[Bundle]:
    """Cut a list of pairs, in its order, into trees of at most `budget` tokens; a longer pair stands alone."""
    bundles: list[Bundle] = []
    members: list[int] = []
    crown = _Crown()
    for number, paths in enumerate(pairs):
        before = crown.size
        crown.add(paths)
        if members and crown.size > budget:
            bundles.append(Bundle(tuple(members), before))
            members, crown = [], _Crown()
            crown.add(paths)
        members.append(number)
    return [*bundles, Bundle(tuple(members), crown.size)] if members else bundles


class _Crown:
    """How large the tree of some paths is, one path after another, without growing it."""

    def __init__(self) -> None:
        self.size = 0
        self.keys: list[bytes] = []
        self.tokens: list[Ints] = []

    def add(self, paths: Sequence[Path]) -> None:
        """A path shares most with its neighbours in the order of tokens; what it does not share is new."""
        for path in paths:
            key = path.tokens.astype(">i4").tobytes()
            at = bisect_left(self.keys, key)
            beside = self.tokens[max(0, at - 1) : at + 1]
            self.size += len(path.tokens) - max((shared_length(path.tokens, other) for other in beside), default=0)
            self.keys.insert(at, key)
            self.tokens.insert(at, path.tokens)
