"""Token trees: a trie of responses, in which what several of them begin with is stored, and computed, once.

A pair is a trunk (prompt, prefix, whatever both sides share) with two branches; supervised data is a tree with
one branch; all pairs of one problem can be one tree. Everything here is integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepdpo.tokens.step_spans import Ints, Steps, TreeSteps, tree_steps
from stepdpo.tokens.trie import Segment, TrieBuilder


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One response from the root of its tree to its end."""

    tokens: Ints
    first_scored: int
    """Every token from this index on is scored; at least 1, since something must predict it."""
    owner: int
    """Number of the response within its tree; those of an example follow one another, and chosen precedes rejected."""
    steps: Steps | None = None
    """For losses that look at steps; then every response of a tree has them."""


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A tree of tokens in depth-first order. Token q may attend to token k iff `k <= q < ends[k]`."""

    tokens: Ints
    positions: Ints
    """Depth of each token: its position if its own sequence stood alone."""
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
    """The numbers of the examples, which mostly are pairs."""
    confidences: tuple[float, ...]
    responses: tuple[int, ...]
    """One an example: how many responses it has."""
    steps: TreeSteps | None = None

    def __len__(self) -> int:
        return len(self.tokens)


def build_tree(
    sequences: Sequence[TokenSequence],
    pair_ids: Sequence[int],
    confidences: Sequence[float],
    responses: Sequence[int] | None = None,
) -> TokenTree:
    """Merge sequences into a tree: equal beginnings become one trunk, whatever the texts they came from.

    `responses`: how many of the sequences each example has; where it is left out, each has as many as any other. The
    first sequence's branch comes first at every fork. Raises ValueError if there are no sequences, one is empty, or
    the first token of one is scored.
    """
    if not sequences or any(len(s.tokens) == 0 or s.first_scored < 1 for s in sequences):
        raise ValueError("every sequence needs a token before its first scored one")
    trie = TrieBuilder([sequence.tokens for sequence in sequences])
    trie.walk()
    places = [np.concatenate(parts) for parts in trie.places]
    sources, targets, terms, owners = _predictions(sequences, places)
    return TokenTree(
        tokens=np.concatenate(trie.tokens),
        positions=np.concatenate(trie.positions),
        ends=trie.ends(),
        segments=tuple(trie.segments),
        sources=sources,
        targets=targets,
        terms=terms,
        owners=owners,
        pair_ids=tuple(pair_ids),
        confidences=tuple(confidences),
        responses=tuple(responses or [len(sequences) // max(1, len(pair_ids))] * len(pair_ids)),
        steps=_steps(sequences, places),
    )


def build_pair_tree(
    chosen: TokenSequence, rejected: TokenSequence, shared: int, pair_id: int, confidence: float
) -> TokenTree:
    """What `build_tree` makes of two sequences that share just their first `shared` tokens; without a search."""
    first, second = len(chosen.tokens), len(rejected.tokens)
    total = first + second - shared
    positions = _upto(total)
    rejected_places = positions[:second]
    ends = np.full(total, total, np.int32)
    segments: tuple[Segment, ...] = (Segment(0, 0, total),)
    # Where one side is the beginning of the other there is no fork, and the longer side is the whole tree.
    if shared < min(first, second):
        rejected_places = np.concatenate([positions[:shared], positions[first:]])
        positions = np.concatenate([positions[:first], positions[shared:second]])
        ends[shared:first] = first
        segments = (Segment(0, 0, first), Segment(0, first, total, ((0, shared),)))
    tokens = np.concatenate([chosen.tokens, rejected.tokens[shared:]])
    pair, places = (chosen, rejected), (_upto(first), rejected_places)
    sources, targets, terms, owners = _predictions(pair, places)
    return TokenTree(
        tokens, positions, ends, segments, sources, targets, terms, owners, (pair_id,), (confidence,), (2,),
        _steps(pair, places),
    )  # fmt: skip


def places_in(merged: TokenTree, own: Sequence[TokenTree]) -> list[Ints]:
    """For each example of a merged tree, where the predictions of its own tree are among the merged ones.

    `own[k]` is the tree that example k makes alone. A response's terms come in the order of its sequence in both.
    """
    order = np.argsort(merged.owners, kind="stable")
    starts = np.searchsorted(merged.owners[order], np.arange(sum(merged.responses) + 1))
    found = []
    response = 0
    for tree in own:
        place = np.zeros(len(tree.targets), np.int32)
        for side in range(tree.responses[0]):
            place[tree.terms[tree.owners == side]] = merged.terms[order[starts[response] : starts[response + 1]]]
            response += 1
        found.append(place)
    return found


def _upto(count: int) -> Ints:
    return np.arange(count, dtype=np.int32)


def _steps(sequences: Sequence[TokenSequence], places: Sequence[Ints]) -> TreeSteps | None:
    marked = [(s.owner, s.first_scored, s.steps, place) for s, place in zip(sequences, places, strict=True) if s.steps]
    return tree_steps(marked) if marked else None


def _predictions(sequences: Sequence[TokenSequence], places: Sequence[Ints]) -> tuple[Ints, Ints, Ints, Ints]:
    """(sources, targets, terms, owners), each distinct (source, target) once; `places`: where a sequence's tokens lie.

    The first token of a branch is predicted by the trunk's last token, so `sources` skips from one to the other.
    """
    sources = np.concatenate([place[s.first_scored - 1 : -1] for s, place in zip(sequences, places, strict=True)])
    targets = np.concatenate([s.tokens[s.first_scored :] for s in sequences])
    owners = np.repeat([s.owner for s in sequences], [len(s.tokens) - s.first_scored for s in sequences])
    # Both numbers in one of 64 bits, so that equal pairs are found by one sort of plain numbers.
    distinct, terms = np.unique(sources.astype(np.int64) << 32 | targets, return_inverse=True)
    return (
        (distinct >> 32).astype(np.int32),
        (distinct & 0xFFFFFFFF).astype(np.int32),
        terms.astype(np.int32),
        owners.astype(np.int32),
    )
