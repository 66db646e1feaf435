"""Packing: which pairs of an optimizer step are merged into one tree, and which trees share a micro-batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

from stepdpo.tokens.step_spans import Ints
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.trie import shared_length, sort_key


@dataclass(frozen=True, slots=True)
class TreePack:
    """Pairs that share one tree."""

    members: tuple[int, ...]
    """Places in the list that was packed."""
    size: int
    """Tokens of the tree, shared ones counted once."""


def pack_trees(pairs: Sequence[Sequence[TokenSequence]], budget: int) -> list[TreePack]:
    """Split a list of pairs, in its order, into trees of at most `budget` tokens; a longer pair stands alone."""
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


def balance(sizes: Sequence[int], budget: int, world_size: int) -> list[list[int]]:
    """Spread trees over micro-batches of at most `budget` tokens, as many for every process.

    Longest first onto the lightest list (LPT scheduling). Returns a multiple of `world_size` lists of indices,
    balanced by tokens; process r computes lists r, r + world_size, ... A tree larger than the budget gets a list of
    its own. Lists may be empty (the caller fills them with a tree of weight zero). Deterministic; every index occurs
    exactly once.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    # The fewest lists that could do: a tree over the budget fills one list, however long it is. Balanced lists, rather
    # than full ones, keep processes from waiting for each other, and a row costs no more for being short.
    count = min(-(-sum(min(size, budget) for size in sizes) // budget), len(sizes)) or 1
    while True:
        count = -(-count // world_size) * world_size
        lists: list[list[int]] = [[] for _ in range(count)]
        lightest = [(0, number) for number in range(count)]
        for index in order:
            tokens, number = lightest[0]
            heapreplace(lightest, (tokens + sizes[index], number))
            lists[number].append(index)
        if all(tokens <= budget or len(lists[number]) == 1 for tokens, number in lightest):
            return lists
        count += 1


class _PackSize:
    """How large the tree of some sequences is, one sequence after another, without building it."""

    def __init__(self) -> None:
        self.size = 0
        self.keys: list[bytes] = []
        self.tokens: list[Ints] = []

    def add(self, sequences: Sequence[TokenSequence]) -> None:
        """Count what the sequences have that no earlier one begins with."""
        for sequence in sequences:
            key = sort_key(sequence.tokens)
            at = bisect_left(self.keys, key)
            # Of all sequences, those beside it in the order of tokens share most with it: the two are enough.
            beside = self.tokens[max(0, at - 1) : at + 1]
            shared = max((shared_length(sequence.tokens, other) for other in beside), default=0)
            self.size += len(sequence.tokens) - shared
            self.keys.insert(at, key)
            self.tokens.insert(at, sequence.tokens)
