"""Token trees: what several responses share is stored, and computed, once.

A pair is a trunk (prompt, prefix, whatever both sides share) with two branches; supervised data is a tree with
one branch; all pairs of one problem can be one tree. Everything here is integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepdpo.tokens.trie import TrieBuilder

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segment:
    """A contiguous stretch of a packed row that is causal in itself and also sees the stretches of its ancestors."""

    row: int
    start: int
    stop: int
    ancestors: tuple[tuple[int, int], ...] = ()
    """(start, stop) of what it sees of earlier runs of the same row, in order; each starts where a run starts."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
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
    segments: tuple[Segment, ...]
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


def build_tree(sequences: Sequence[TokenSequence], pair_ids: Sequence[int], confidences: Sequence[float]) -> TokenTree:
    """Merge paths into a tree: equal beginnings become one trunk, whatever the texts they came from.

    The first path's branch comes first at every fork. Raises ValueError if there are no paths, one is empty, or
    the first token of one is scored.
    """
    if not sequences or any(len(p.tokens) == 0 or p.first_scored < 1 for p in sequences):
        raise ValueError("every path needs a token before its first scored one")
    builder = TrieBuilder([sequence.tokens for sequence in sequences])
    builder.walk()
    tokens = np.concatenate(builder.tokens)
    sources, targets, terms, owners = _predictions(sequences, [np.concatenate(p) for p in builder.places])
    return TokenTree(
        tokens=tokens,
        positions=np.concatenate(builder.positions),
        ends=builder.ends(),
        segments=tuple(Segment(0, *segment) for segment in builder.segments),
        sources=sources,
        targets=targets,
        terms=terms,
        owners=owners,
        pair_ids=tuple(pair_ids),
        confidences=tuple(confidences),
    )


def build_pair_tree(
    chosen: TokenSequence, rejected: TokenSequence, shared: int, pair_id: int, confidence: float
) -> TokenTree:
    """What `build_tree` makes of two paths that share just their first `shared` tokens; without a search."""
    first, second = len(chosen.tokens), len(rejected.tokens)
    total = first + second - shared
    positions = _upto(total)
    place = positions[:second]
    ends = np.full(total, total, np.int32)
    segments: tuple[Segment, ...] = (Segment(0, 0, total),)
    if shared < min(first, second):
        place = np.concatenate([positions[:shared], positions[first:]])
        positions = np.concatenate([positions[:first], positions[shared:second]])
        ends[shared:first] = first
        segments = (Segment(0, 0, first), Segment(0, first, total, ((0, shared),)))
    tokens = np.concatenate([chosen.tokens, rejected.tokens[shared:]])
    sources, targets, terms, owners = _predictions((chosen, rejected), (_upto(first), place))
    return TokenTree(tokens, positions, ends, segments, sources, targets, terms, owners, (pair_id,), (confidence,))


def places_in(merged: TokenTree, own: Sequence[TokenTree]) -> list[Ints]:
    """For each pair of a merged tree, where the predictions of the pair's own tree are among the merged ones.

    `own[k]` is the tree that pair k makes alone. A response's terms come in the order of its path in both.
    """
    order = np.argsort(merged.owners, kind="stable")
    starts = np.searchsorted(merged.owners[order], np.arange(2 * len(own) + 1))
    found = []
    for number, tree in enumerate(own):
        place = np.zeros(len(tree.targets), np.int32)
        for side in (0, 1):
            response = 2 * number + side
            place[tree.terms[tree.owners == side]] = merged.terms[order[starts[response] : starts[response + 1]]]
        found.append(place)
    return found


def _upto(count: int) -> Ints:
    return np.arange(count, dtype=np.int32)


def _predictions(sequences: Sequence[TokenSequence], places: Sequence[Ints]) -> tuple[Ints, Ints, Ints, Ints]:
    """(sources, targets, terms, owners), each distinct (source, target) once; `places`: where a path's tokens lie."""
    sources = np.concatenate([place[p.first_scored - 1 : -1] for p, place in zip(sequences, places, strict=True)])
    targets = np.concatenate([p.tokens[p.first_scored :] for p in sequences])
    owners = np.repeat([p.owner for p in sequences], [len(p.tokens) - p.first_scored for p in sequences])
    distinct, terms = np.unique(sources.astype(np.int64) << 32 | targets, return_inverse=True)
    return (
        (distinct >> 32).astype(np.int32),
        (distinct & 0xFFFFFFFF).astype(np.int32),
        terms.astype(np.int32),
        owners.astype(np.int32),
    )
