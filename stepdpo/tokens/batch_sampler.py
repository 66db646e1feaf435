"""Which pairs make up which update: a pure function of (the pairs, seed, epoch), whatever the processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import balance, collate
from stepdpo.tokens.packing import TreePack, pack_trees
from stepdpo.tokens.token_store import TokenStore
from stepdpo.tokens.token_tree import TokenTree, build_tree

Numbers = NDArray[np.integer[Any]]
WINDOW = 4096
"""Pairs that are planned together where all of them are passed over."""


class Group(Enum):
    """Which pairs stand side by side, and share a tree."""

    none = "none"
    """Every pair is a tree of its own, in any order."""
    problem = "problem"
    """The pairs of one problem (same question and history) follow one another and are merged into one tree."""


@dataclass(frozen=True)
class BatchSize:
    """Size of an update and of the pieces it is computed in."""

    pairs: int = 128
    """Pairs an update averages over, over all processes together; Step-DPO 128."""
    tokens: int = 8192
    """Most tokens (shared ones counted once) a process computes at a time; never changes the result."""
    group: Group = Group.none
    """With `problem`, all pairs of a problem in one update share what they can; changes the order of the pairs."""

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.tokens < 1:
            raise ValueError("pairs and tokens must be at least 1")


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one process."""

    batch: TreeBatch
    weight: float
    """1, or 0 for a stand-in that keeps every process making the same number of passes."""


def order(ids: Sequence[int] | Numbers, seed: int, epoch: int) -> Numbers:
    """The pairs in the order of an epoch (from 0)."""
    return np.asarray(ids)[np.argsort(_chance(seed, epoch, len(ids)), kind="stable")]


def order_of_problems(ids: Numbers, groups: Numbers, ranks: Numbers, seed: int, epoch: int) -> Numbers:
    """The same with problems in place of pairs; those of one problem follow one another, by their ranks."""
    problems, of = np.unique(groups, return_inverse=True)
    return ids[np.lexsort((ranks, of, _chance(seed, epoch, len(problems))[of]))]


def _chance(seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    """Random numbers; those of the bare generator are the same in all releases of numpy."""
    entropy = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return np.random.PCG64(int.from_bytes(entropy)).random_raw(count)


def steps_per_epoch(pairs: int, size: int) -> int:
    """The last update of an epoch may hold fewer pairs; none is left out."""
    return -(-pairs // size)


class BatchSampler:
    """The pairs of every update; ordered once an epoch, then cut."""

    def __init__(self, trees: TokenStore, seed: int, size: BatchSize) -> None:
        self.trees, self.seed, self.size = trees, seed, size
        self.per_epoch = steps_per_epoch(len(trees), size.pairs)
        self._epoch = -1
        self._order: Numbers = trees.ids

    def __call__(self, number: int) -> list[int]:
        """The pairs of update `number`, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._ordered(epoch), epoch
        chosen: list[int] = self._order[place * self.size.pairs : (place + 1) * self.size.pairs].tolist()
        return chosen

    def _ordered(self, epoch: int) -> Numbers:
        ids = self.trees.ids
        if self.size.group is Group.none:
            return order(ids, self.seed, epoch)
        groups, ranks = self.trees.column("group", ids), self.trees.column("rank", ids)
        return order_of_problems(ids, groups, ranks, self.seed, epoch)


def micro_batches(
    trees: TokenStore, ids: Sequence[int], tokens: int, rank: int, world_size: int, group: Group = Group.none
) -> Iterator[MicroBatch]:
    """This process's share of the pairs `ids`, in pieces of at most `tokens` tokens; as many for every process."""
    ids = list(ids)
    packs = _problems(trees, ids, tokens) if group is Group.problem else _alone(trees, ids)
    lists = balance([b.size for b in packs], tokens, world_size)
    for members in lists[rank::world_size]:
        if members:
            yield MicroBatch(_batch(trees, [[ids[m] for m in packs[b].members] for b in members]), 1.0)
        else:
            yield MicroBatch(collate([trees[ids[int(trees.sizes(ids).argmin())]]]), 0.0)


def all_micro_batches(
    trees: TokenStore, tokens: int, rank: int, world_size: int, group: Group = Group.none, window: int = WINDOW
) -> Iterator[MicroBatch]:
    """This process's share of all pairs, planned window by window: as many pieces for every process."""
    for first in range(0, len(trees), window):
        yield from micro_batches(trees, trees.ids[first : first + window].tolist(), tokens, rank, world_size, group)


def _alone(trees: TokenStore, ids: Sequence[int]) -> list[TreePack]:
    return [TreePack((place,), size) for place, size in enumerate(trees.sizes(ids).tolist())]


def _problems(trees: TokenStore, ids: Sequence[int], tokens: int) -> list[TreePack]:
    """The pairs of each problem together, cut where a tree would exceed `tokens`."""
    groups, ranks = trees.column("group", ids), trees.column("rank", ids)
    packs: list[TreePack] = []
    sequence = np.lexsort((ranks, groups))
    starts = np.flatnonzero(np.diff(groups[sequence])) + 1
    for places in np.split(sequence, starts):
        cut = pack_trees([trees.sequences(ids[place]) for place in places], tokens)
        packs += [TreePack(tuple(int(places[m]) for m in b.members), b.size) for b in cut]
    return packs


def _batch(trees: TokenStore, packs: Sequence[Sequence[int]]) -> TreeBatch:
    """One tree a bundle, in one row."""
    built: list[TokenTree] = []
    own: dict[int, list[TokenTree]] = {}
    for number, members in enumerate(packs):
        if len(members) == 1:
            built.append(trees[members[0]])
            continue
        own[number] = [trees[member] for member in members]
        built.append(merged(trees, members))
    return collate(built, own)


def merged(trees: TokenStore, members: Sequence[int]) -> TokenTree:
    """Several pairs as one tree; response 2 * k + side is a side of pair k."""
    sequences = [
        replace(sequence, owner=2 * number + sequence.owner)
        for number, member in enumerate(members)
        for sequence in trees.sequences(member)
    ]
    return build_tree(sequences, members, [trees.confidence(member) for member in members])
