"""Which pairs make up which update: a pure function of (number of pairs, seed, epoch), whatever the processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from stepdpo.batch import TreeBatch
from stepdpo.tokenise import collate, plan
from stepdpo.trees import TokenTree


@dataclass(frozen=True)
class BatchSize:
    """Size of an update and of the pieces it is computed in."""

    pairs: int = 128
    """Pairs an update averages over, over all processes together; Step-DPO 128."""
    tokens: int = 8192
    """Most tokens (shared ones counted once) a process computes at a time; never changes the result."""

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.tokens < 1:
            raise ValueError("pairs and tokens must be at least 1")


@dataclass(frozen=True)
class Piece:
    """One forward pass of one process."""

    batch: TreeBatch
    weight: float
    """1, or 0 for a stand-in that keeps every process making the same number of passes."""


def order(ids: Sequence[int], seed: int, epoch: int) -> list[int]:
    """The pairs in the order of an epoch (from 0)."""
    shuffled = list(ids)
    Random(f"{seed}/{epoch}").shuffle(shuffled)
    return shuffled


def updates_per_epoch(pairs: int, size: int) -> int:
    """The last update of an epoch may hold fewer pairs; none is left out."""
    return -(-pairs // size)


def update(ids: Sequence[int], seed: int, size: int, number: int) -> list[int]:
    """The pairs of update `number`, counted from 0 over all epochs."""
    epoch, place = divmod(number, updates_per_epoch(len(ids), size))
    return order(ids, seed, epoch)[place * size : (place + 1) * size]


def pieces(trees: Mapping[int, TokenTree], ids: Sequence[int], tokens: int, rank: int, world: int) -> Iterator[Piece]:
    """This process's share of the pairs `ids`, in pieces of at most `tokens` tokens; as many for every process."""
    lists = plan([len(trees[i]) for i in ids], tokens, world)
    for members in lists[rank::world]:
        if members:
            yield Piece(collate([trees[ids[m]] for m in members]), 1.0)
        else:
            shortest = min(ids, key=lambda i: len(trees[i]))
            yield Piece(collate([trees[shortest]]), 0.0)
