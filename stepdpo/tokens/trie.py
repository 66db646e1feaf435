"""How paths of tokens become one tree: a depth-first walk over what they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Stretches = tuple[tuple[int, int], ...]


def shared_length(one: Ints, other: Ints) -> int:
    """How many tokens two paths begin with in common."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    at = int(differs.argmax()) if length else 0
    return at if length and differs[at] else length


class TrieBuilder:
    """The state of one depth-first walk."""

    def __init__(self, sequences: Sequence[Ints]) -> None:
        self.sequences = sequences
        self.rank = _rank(sequences)
        self.size = 0
        self.tokens: list[Ints] = []
        self.positions: list[Ints] = []
        self.nodes: list[tuple[int, int]] = []
        """(start, how many forks lie above) of every stretch."""
        self.segments: list[tuple[int, int, Stretches]] = []
        """(start, stop, ancestors) of every TokenRun."""
        self.places: list[list[Ints]] = [[] for _ in sequences]

    def walk(self) -> None:
        """Stretch by stretch, each before its branches; without recursion, as chains of steps are deep."""
        waiting: list[tuple[tuple[int, ...], int, int | None, Stretches, int]]
        waiting = [(tuple(range(len(self.sequences))), 0, 0, (), 0)]
        while waiting:
            group, depth, begun, ancestors, level = waiting.pop()
            segment_start = self.size if begun is None else begun
            self.nodes.append((self.size, level))
            depth = self._write(group, depth)
            forks = self._forks(group, depth)
            if not forks:
                self.segments.append((segment_start, self.size, ancestors))
                continue
            seen = (*ancestors, (segment_start, self.size))
            waiting += [(fork, depth, None, seen, level + 1) for fork in reversed(forks[1:])]
            waiting.append((forks[0], depth, segment_start, ancestors, level + 1))

    def _write(self, group: tuple[int, ...], depth: int) -> int:
        """The stretch that all of `group` share from `depth` on; returns where it ends."""
        first = self.sequences[group[0]][depth:]
        length = len(first)
        if len(group) > 1:  # what the outermost two in the order of tokens share, all between them do
            outermost = min(group, key=self.rank.__getitem__), max(group, key=self.rank.__getitem__)
            length = shared_length(*(self.sequences[member][depth:] for member in outermost))
        place = np.arange(self.size, self.size + length, dtype=np.int32)
        self.tokens.append(first[:length])
        self.positions.append(np.arange(depth, depth + length, dtype=np.int32))
        for member in group:
            self.places[member].append(place)
        self.size += length
        return depth + length

    def _forks(self, group: tuple[int, ...], depth: int) -> list[tuple[int, ...]]:
        branches: dict[int, list[int]] = {}
        for member in group:
            tokens = self.sequences[member]
            if depth < len(tokens):
                branches.setdefault(int(tokens[depth]), []).append(member)
        return [tuple(branch) for branch in branches.values()]

    def ends(self) -> Ints:
        """A stretch is seen until the next one with as few forks above it begins."""
        ends = np.empty(self.size, np.int32)
        waiting: list[tuple[int, int, int]] = []
        for number, (start, level) in enumerate([*self.nodes, (self.size, 0)]):
            while waiting and waiting[-1][2] >= level:
                begin, stop, _ = waiting.pop()
                ends[begin:stop] = start
            after = self.nodes[number + 1][0] if number + 1 < len(self.nodes) else self.size
            waiting.append((start, after, level))
        return ends


def _rank(tokens: Sequence[Ints]) -> list[int]:
    """The place of each path in the order of tokens."""
    keys = [sequence.astype(">i4").tobytes() for sequence in tokens]
    rank = [0] * len(keys)
    for place, number in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
        rank[number] = place
    return rank
