"""The trie of some sequences of tokens, walked depth first: what they begin with alike is written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepdpo.tokens.step_spans import Ints

Spans = tuple[tuple[int, int], ...]
"""(start, stop) of parts of a row, in order."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A contiguous part of a packed row that is causal in itself and also sees its ancestors."""

    row: int
    start: int
    stop: int
    ancestors: Spans = ()
    """(start, stop) of what it sees of earlier segments of the same row; each starts where a segment starts."""


def shared_length(one: Ints, other: Ints) -> int:
    """How many tokens two sequences begin with in common."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    at = int(differs.argmax()) if length else 0
    return at if length and differs[at] else length


def sort_key(tokens: Ints) -> bytes:
    """Bytes that sort as the tokens do: token ids are not negative, and big-endian bytes compare like numbers."""
    return tokens.astype(">i4").tobytes()


class TrieBuilder:
    """The state of one depth-first walk over the trie of some sequences."""

    def __init__(self, sequences: Sequence[Ints]) -> None:
        self.sequences = sequences
        keys = [sort_key(sequence) for sequence in sequences]
        self.rank = [0] * len(keys)
        """The place of each sequence in the order of tokens."""
        for place, number in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
            self.rank[number] = place
        self.size = 0
        self.tokens: list[Ints] = []
        self.positions: list[Ints] = []
        self.nodes: list[tuple[int, int]] = []
        """(start, how many forks lie above) of every node of the trie."""
        self.segments: list[Segment] = []
        self.places: list[list[Ints]] = [[] for _ in sequences]
        """For each sequence, where its tokens lie."""

    def walk(self) -> None:
        """Node by node, each before its branches; by a stack of our own, as chains of steps are deep."""
        waiting: list[tuple[tuple[int, ...], int, int | None, Spans, int]]
        waiting = [(tuple(range(len(self.sequences))), 0, 0, (), 0)]
        while waiting:
            group, depth, begun, ancestors, level = waiting.pop()
            segment_start = self.size if begun is None else begun
            self.nodes.append((self.size, level))
            depth = self._write(group, depth)
            forks = self._forks(group, depth)
            if not forks:
                self.segments.append(Segment(0, segment_start, self.size, ancestors))
                continue
            # The first branch follows its trunk without a gap, so both are one causal segment; only the others need
            # the trunk as an ancestor. The stack gives back what was put on last, hence the reversal.
            above = (*ancestors, (segment_start, self.size))
            waiting += [(fork, depth, None, above, level + 1) for fork in reversed(forks[1:])]
            waiting.append((forks[0], depth, segment_start, ancestors, level + 1))

    def _write(self, group: tuple[int, ...], depth: int) -> int:
        """What all sequences of `group` share from `depth` on; returns where it ends."""
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
        """A node is seen until the next one with as few forks above it begins.

        In depth-first order all that descends from a node follows it without a gap, so one number a token says who
        may attend to it, however deep the tree.
        """
        ends = np.empty(self.size, np.int32)
        waiting: list[tuple[int, int, int]] = []
        for number, (start, level) in enumerate([*self.nodes, (self.size, 0)]):
            while waiting and waiting[-1][2] >= level:
                begin, stop, _ = waiting.pop()
                ends[begin:stop] = start
            after = self.nodes[number + 1][0] if number + 1 < len(self.nodes) else self.size
            waiting.append((start, after, level))
        return ends
