"""Which pairs of an update are merged into one tree: those of one problem, as many as fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from stepdpo.tokens.token_tree import Ints, TokenSequence
from stepdpo.tokens.trie import shared_length


@dataclass(frozen=True, slots=True)
class TreePack:
    """Pairs that share one tree."""

    members: tuple[int, ...]
    """Places in the list that was bundled."""
    size: int
    """Tokens of the tree, shared ones counted once."""


def pack_trees(pairs: Sequence[Sequence[TokenSequence]], budget: int) -> list[TreePack]:
    """Cut a list of pairs, in its order, into trees of at most `budget` tokens; a longer pair stands alone."""
    packs: list[TreePack] = []
    members: list[int] = []
    pack_size = _PackSize()
    for number, sequences in enumerate(pairs):
        before = pack_size.size
        pack_size.add(sequences)
        if members and pack_size.size > budget:
            packs.append(TreePack(tuple(members), before))
            members, pack_size = [], _PackSize()
            pack_size.add(sequences)
        members.append(number)
    return [*packs, TreePack(tuple(members), pack_size.size)] if members else packs


class _PackSize:
    """How large the tree of some paths is, one path after another, without growing it."""

    def __init__(self) -> None:
        self.size = 0
        self.keys: list[bytes] = []
        self.tokens: list[Ints] = []

    def add(self, sequences: Sequence[TokenSequence]) -> None:
        """A path shares most with its neighbours in the order of tokens; what it does not share is new."""
        for sequence in sequences:
            key = sequence.tokens.astype(">i4").tobytes()
            at = bisect_left(self.keys, key)
            beside = self.tokens[max(0, at - 1) : at + 1]
            self.size += len(sequence.tokens) - max(
                (shared_length(sequence.tokens, other) for other in beside), default=0
            )
            self.keys.insert(at, key)
            self.tokens.insert(at, sequence.tokens)
