"""Which pairs make up which optimizer step: a pure function of (the pairs, seed, epoch), whatever the processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepdpo.core.ranges import at_least
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.packing import TreePack, balance, pack_trees
from stepdpo.tokens.token_store import TokenStore
from stepdpo.tokens.token_tree import TokenTree, build_tree

Numbers = NDArray[np.integer[Any]]
WINDOW = 4096
"""Pairs that a pass over all pairs plans together: more balance better, fewer bring the first micro-batch sooner."""


class Group(Enum):
    """Which pairs stand side by side, and share a tree."""

    none = "none"
    """Every pair is a tree of its own, in any order."""
    problem = "problem"
    """The pairs of one problem (same question and history) follow one another and are merged into one tree."""


class Partial(Enum):
    """What becomes of the pairs that do not fill an epoch's last step."""

    keep = "keep"
    """The last step has fewer pairs."""
    official = "official"
    """An epoch ends before it, as in transformers' trainer; other pairs are left out in every epoch."""


@dataclass(frozen=True)
class BatchSize:
    """Size of an optimizer step and of the micro-batches it is computed in (gradient accumulation)."""

    pairs: int = 128
    """Pairs a step averages over, over all processes together; Step-DPO 128."""
    tokens: int = 8192
    """Most tokens (shared ones counted once) a process computes at a time; never changes the result."""
    group: Group = Group.none
    """With `problem`, all pairs of a problem in one step share what they can; changes the order of the pairs."""

    partial: Partial = Partial.keep

    def __post_init__(self) -> None:
        at_least(1, pairs=self.pairs, tokens=self.tokens)


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one process."""

    batch: TreeBatch
    weight: float
    """1, or 0 for a stand-in that keeps every process making the same number of passes."""


def order(ids: Sequence[int] | Numbers, seed: int, epoch: int) -> Numbers:
    """The pairs in the order of an epoch (from 0)."""
    return np.asarray(ids)[np.argsort(_random_numbers(seed, epoch, len(ids)), kind="stable")]


def order_of_problems(ids: Numbers, groups: Numbers, ranks: Numbers, seed: int, epoch: int) -> Numbers:
    """The same with problems in place of pairs; those of one problem follow one another, by their ranks."""
    problems, problem_of = np.unique(groups, return_inverse=True)
    # The last key counts most: a random number a problem, then the problem (numbers may be equal), then the rank.
    return ids[np.lexsort((ranks, problem_of, _random_numbers(seed, epoch, len(problems))[problem_of]))]


def _random_numbers(seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    """As many numbers of 64 bits as are to be ordered."""
    entropy = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    # Raw output of the bit generator: numpy may change its shuffles from release to release, and a run that is resumed
    # under another numpy must see the same order.
    return np.random.PCG64(int.from_bytes(entropy)).random_raw(count)


def steps_per_epoch(pairs: int, size: int, partial: Partial = Partial.keep) -> int:
    """The last step of an epoch may hold fewer pairs, or is left out unless it is the only one."""
    return max(1, pairs // size) if partial is Partial.official and pairs else -(-pairs // size)


class BatchSampler:
    """The pairs of every optimizer step; ordered once an epoch, then sliced."""

    def __init__(self, trees: TokenStore, seed: int, size: BatchSize) -> None:
        self.trees, self.seed, self.size = trees, seed, size
        self.per_epoch = steps_per_epoch(len(trees), size.pairs, size.partial)
        self._epoch = -1
        self._order: Numbers = trees.ids

    def __call__(self, number: int) -> list[int]:
        """The pairs of step `number`, counted from 0 over all epochs."""
        epoch, step = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._ordered(epoch), epoch
        pairs: list[int] = self._order[step * self.size.pairs : (step + 1) * self.size.pairs].tolist()
        return pairs

    def _ordered(self, epoch: int) -> Numbers:
        ids = self.trees.ids
        if self.size.group is Group.none:
            return order(ids, self.seed, epoch)
        groups, ranks = self.trees.column("group", ids), self.trees.column("rank", ids)
        return order_of_problems(ids, groups, ranks, self.seed, epoch)


def micro_batches(
    trees: TokenStore, ids: Sequence[int], tokens: int, rank: int, world_size: int, group: Group = Group.none
) -> Iterator[MicroBatch]:
    """This process's part of the pairs `ids` as micro-batches of at most `tokens` tokens, as many for every process."""
    ids = list(ids)
    packs = _by_problem(trees, ids, tokens) if group is Group.problem else _one_by_one(trees, ids)
    lists = balance([pack.size for pack in packs], tokens, world_size)
    for numbers in lists[rank::world_size]:
        if numbers:
            yield MicroBatch(_batch(trees, [[ids[m] for m in packs[n].members] for n in numbers]), 1.0)
        else:
            # Under ZeRO-3 every pass gathers parameters from all processes: were it one fewer here, the others would
            # wait for ever. The shortest tree is the cheapest stand-in.
            yield MicroBatch(collate([trees[ids[int(trees.sizes(ids).argmin())]]]), 0.0)


def all_micro_batches(
    trees: TokenStore, tokens: int, rank: int, world_size: int, group: Group = Group.none, window: int = WINDOW
) -> Iterator[MicroBatch]:
    """This process's part of all pairs, planned window by window: as many micro-batches for every process."""
    for first in range(0, len(trees), window):
        yield from micro_batches(trees, trees.ids[first : first + window].tolist(), tokens, rank, world_size, group)


def _one_by_one(trees: TokenStore, ids: Sequence[int]) -> list[TreePack]:
    return [TreePack((place,), size) for place, size in enumerate(trees.sizes(ids).tolist())]


def _by_problem(trees: TokenStore, ids: Sequence[int], tokens: int) -> list[TreePack]:
    """The pairs of each problem together, split where a tree would exceed `tokens`."""
    groups, ranks = trees.column("group", ids), trees.column("rank", ids)
    packs: list[TreePack] = []
    # Ranks order a problem's pairs by tokens, so those that share most are neighbours and fall into the same tree.
    by_rank = np.lexsort((ranks, groups))
    starts = np.flatnonzero(np.diff(groups[by_rank])) + 1
    for places in np.split(by_rank, starts):
        split = pack_trees([trees.sequences(ids[place]) for place in places], tokens)
        packs += [TreePack(tuple(int(places[m]) for m in pack.members), pack.size) for pack in split]
    return packs


def _batch(trees: TokenStore, packs: Sequence[Sequence[int]]) -> TreeBatch:
    """One tree a pack, all in one row."""
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
    """Several examples as one tree; the responses of each follow those of the one before."""
    examples = [trees.sequences(member) for member in members]
    sequences = [replace(one, owner=owner) for owner, one in enumerate(chain.from_iterable(examples))]
    return build_tree(sequences, members, [trees.confidence(member) for member in members], list(map(len, examples)))
