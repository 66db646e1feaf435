"""Token trees: what several responses share is stored, and computed, once.

A pair is a trunk (prompt, prefix, whatever both sides share) with two branches; supervised data is a tree with
one branch; all pairs of one problem can be one tree. Everything here is integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TokenRun:
    """A contiguous stretch of a packed row that is causal in itself and also sees the stretches of its ancestors."""

    row: int
    start: int
    stop: int
    ancestors: tuple[tuple[int, int], ...] = ()
    """(start, stop) of what it sees of earlier runs of the same row, in order; each starts where a run starts."""


@dataclass(frozen=True, slots=True)
class Path:
    """One response from the root of its tree to its end."""

    tokens: Ints
    first_scored: int
    """Every token from this index on is scored; at least 1, since something must predict it."""
    owner: int
    """Response number within the tree: 2 * pair + side."""


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A tree of tokens in depth-first order. Token q may attend to token k iff `k <= q < ends[k]`."""

    tokens: Ints
    positions: Ints
    """Depth of each token: its position if its own path stood alone."""
    ends: Ints
    """First index that may no longer see this token."""
    runs: tuple[TokenRun, ...]
    sources: Ints
    """One a scored prediction: index of the token whose hidden state predicts."""
    targets: Ints
    """One a scored prediction: the token id predicted."""
    terms: Ints
    """One a (scored prediction, response): index into `targets`."""
    owners: Ints
    """One a (scored prediction, response): the response it counts for."""
    pair_ids: tuple[int, ...]
    confidences: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def grow(paths: Sequence[Path], pair_ids: Sequence[int], confidences: Sequence[float]) -> TokenTree:
    """Merge paths into a tree: equal beginnings become one trunk, whatever the texts they came from.

    The first path's branch comes first at every fork. Raises ValueError if there are no paths, one is empty, or
    the first token of one is scored.
    """
    if not paths or any(len(p.tokens) == 0 or p.first_scored < 1 for p in paths):
        raise ValueError("every path needs a token before its first scored one")
    planter = _Planter(paths)
    planter.visit(tuple(range(len(paths))), depth=0, run_start=0, ancestors=())
    sources, targets, terms, owners = planter.predictions()
    return TokenTree(
        tokens=np.concatenate(planter.tokens),
        positions=np.concatenate(planter.positions),
        ends=np.concatenate([np.full(stop - start, end, np.int32) for start, stop, end in planter.segments]),
        runs=tuple(planter.runs),
        sources=sources,
        targets=targets,
        terms=terms,
        owners=owners,
        pair_ids=tuple(pair_ids),
        confidences=tuple(confidences),
    )


class _Planter:
    """The state of one depth-first walk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.size = 0
        self.tokens: list[Ints] = []
        self.positions: list[Ints] = []
        self.segments: list[tuple[int, int, int]] = []
        self.runs: list[TokenRun] = []
        self.places: list[list[Ints]] = [[] for _ in paths]

    def visit(self, group: tuple[int, ...], depth: int, run_start: int, ancestors: tuple[tuple[int, int], ...]) -> None:
        """Write the stretch that all of `group` share from `depth` on, then each branch after it."""
        length = self._shared(group, depth)
        start, stop = self.size, self.size + length
        self.tokens.append(self.paths[group[0]].tokens[depth : depth + length])
        self.positions.append(np.arange(depth, depth + length, dtype=np.int32))
        for member in group:
            self.places[member].append(np.arange(start, stop, dtype=np.int32))
        self.size = stop
        slot = len(self.segments)
        self.segments.append((start, stop, stop))
        forks = self._forks(group, depth + length)
        if not forks:
            self.runs.append(TokenRun(0, run_start, stop, ancestors))
        for number, fork in enumerate(forks):
            if number == 0:
                self.visit(fork, depth + length, run_start, ancestors)
            else:
                self.visit(fork, depth + length, self.size, (*ancestors, (run_start, stop)))
        self.segments[slot] = (start, stop, self.size)

    def _shared(self, group: tuple[int, ...], depth: int) -> int:
        first = self.paths[group[0]].tokens[depth:]
        length = len(first)
        for member in group[1:]:
            other = self.paths[member].tokens[depth:]
            length = min(length, len(other))
            differs = np.flatnonzero(first[:length] != other[:length])
            length = int(differs[0]) if len(differs) else length
        return length

    def _forks(self, group: tuple[int, ...], depth: int) -> list[tuple[int, ...]]:
        branches: dict[int, list[int]] = {}
        for member in group:
            tokens = self.paths[member].tokens
            if depth < len(tokens):
                branches.setdefault(int(tokens[depth]), []).append(member)
        return [tuple(branch) for branch in branches.values()]

    def predictions(self) -> tuple[Ints, Ints, Ints, Ints]:
        """(sources, targets, terms, owners), each distinct (source, target) once."""
        sources, targets, owners = [], [], []
        for path, stretches in zip(self.paths, self.places, strict=True):
            places = np.concatenate(stretches)
            sources.append(places[path.first_scored - 1 : -1])
            targets.append(path.tokens[path.first_scored :])
            owners.append(np.full(len(path.tokens) - path.first_scored, path.owner, np.int32))
        both = np.stack([np.concatenate(sources), np.concatenate(targets)])
        distinct, terms = np.unique(both, axis=1, return_inverse=True)
        return (
            distinct[0].astype(np.int32),
            distinct[1].astype(np.int32),
            terms.reshape(-1).astype(np.int32),
            np.concatenate(owners),
        )
