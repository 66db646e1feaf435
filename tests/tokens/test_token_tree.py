"""The token tree against brute force: lossless, and each token sees exactly its own sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_pair_tree, build_tree, places_in
from stepdpo.tokens.trie import shared_length

Forest = list[tuple[list[int], int]]
"""(tokens, first scored) of every sequence."""


@st.composite
def forests(draw: st.DrawFn, pairs: int = 3) -> Forest:
    """Sequences over three token ids, so that they share beginnings often; some are beginnings of others."""
    count = 2 * draw(st.integers(1, pairs))
    sequences: Forest = []
    for _ in range(count):
        start = draw(st.sampled_from([tokens for tokens, _ in sequences])) if sequences and draw(st.booleans()) else []
        kept = start[: draw(st.integers(0, len(start)))]
        tokens = kept + draw(st.lists(st.integers(0, 2), min_size=0 if kept else 1, max_size=6))
        sequences.append((tokens, draw(st.integers(1, len(tokens)))))
    return sequences


def build(sequences: Forest) -> TokenTree:
    return build_tree(
        [TokenSequence(np.array(t, np.int32), first, owner) for owner, (t, first) in enumerate(sequences)],
        pair_ids=range(len(sequences) // 2),
        confidences=[1.0] * (len(sequences) // 2),
    )


def visible(tree: TokenTree, q: int, k: int) -> bool:
    return bool(k <= q < tree.ends[k])


def places(tree: TokenTree, last: int) -> list[int]:
    """All that token `last` sees, in order: its sequence."""
    return [k for k in range(len(tree)) if visible(tree, last, k)]


def beginnings(sequences: Forest) -> set[tuple[int, ...]]:
    """Every distinct non-empty beginning of a sequence is one token of the tree."""
    return {tuple(tokens[:n]) for tokens, _ in sequences for n in range(1, len(tokens) + 1)}


@given(forests())
def test_the_tree_holds_every_beginning_once(sequences: Forest) -> None:
    tree = build(sequences)
    stored = [tuple(int(tree.tokens[k]) for k in places(tree, q)) for q in range(len(tree))]
    assert len(stored) == len(set(stored)) == len(tree)
    assert set(stored) == beginnings(sequences)


@given(forests())
def test_position_is_depth(sequences: Forest) -> None:
    tree = build(sequences)
    for q in range(len(tree)):
        assert tree.positions[q] == len(places(tree, q)) - 1


@given(forests())
def test_visible_is_the_ancestor_relation(sequences: Forest) -> None:
    """k is an ancestor of q iff k's beginning is a beginning of q's."""
    tree = build(sequences)
    own = [tuple(int(tree.tokens[k]) for k in places(tree, q)) for q in range(len(tree))]
    for q in range(len(tree)):
        for k in range(len(tree)):
            assert visible(tree, q, k) == (own[q][: len(own[k])] == own[k])


@given(forests())
def test_segments_say_the_same(sequences: Forest) -> None:
    """Segments cut the row without a gap; each token sees its segment so far and its segment's ancestors."""
    tree = build(sequences)
    assert [segment.start for segment in tree.segments] == [0, *(segment.stop for segment in tree.segments[:-1])]
    assert tree.segments[-1].stop == len(tree)
    starts = {segment.start for segment in tree.segments}
    for segment in tree.segments:
        assert {start for start, _ in segment.ancestors} <= starts
        seen = [k for start, stop in segment.ancestors for k in range(start, stop)]
        for q in range(segment.start, segment.stop):
            assert [*seen, *range(segment.start, q + 1)] == places(tree, q)


@given(forests())
def test_predictions_are_the_scored_tokens(sequences: Forest) -> None:
    """Term by term, response r has (what came before, the next token) for each of its scored tokens, once."""
    tree = build(sequences)
    for owner, (tokens, first) in enumerate(sequences):
        mine = tree.terms[tree.owners == owner]
        got = sorted((len(places(tree, tree.sources[t])), places(tree, tree.sources[t]), tree.targets[t]) for t in mine)
        assert [n for n, _, _ in got] == list(range(first, len(tokens)))
        for n, context, target in got:
            assert [int(tree.tokens[k]) for k in context] == tokens[:n]
            assert target == tokens[n]


@given(forests())
def test_each_prediction_is_computed_once(sequences: Forest) -> None:
    tree = build(sequences)
    wanted = {(tuple(t[:n]), t[n]) for t, first in sequences for n in range(first, len(t))}
    assert len(tree.targets) == len(tree.sources) == len(wanted)
    assert len(tree.terms) == len(tree.owners) == sum(len(t) - first for t, first in sequences)


def test_a_pair_by_hand() -> None:
    """Prompt 7 8, prefix 9, then 1 2 against 3; the prefix is scored."""
    tree = build([([7, 8, 9, 1, 2], 2), ([7, 8, 9, 3], 2)])
    assert tree.tokens.tolist() == [7, 8, 9, 1, 2, 3]
    assert tree.positions.tolist() == [0, 1, 2, 3, 4, 3]
    assert tree.ends.tolist() == [6, 6, 6, 5, 5, 6]
    assert [(r.row, r.start, r.stop, r.ancestors) for r in tree.segments] == [(0, 0, 5, ()), (0, 5, 6, ((0, 3),))]
    scored = sorted(zip(tree.sources.tolist(), tree.targets.tolist(), strict=True))
    assert scored == [(1, 9), (2, 1), (2, 3), (3, 2)]
    terms = {(tree.sources[t], tree.targets[t], o) for t, o in zip(tree.terms, tree.owners, strict=True)}
    assert terms == {(1, 9, 0), (1, 9, 1), (2, 1, 0), (3, 2, 0), (2, 3, 1)}


def test_chosen_may_be_the_beginning_of_rejected() -> None:
    for sequences in ([([1, 2, 3], 1), ([1, 2, 3, 4, 5], 1)], [([1, 2, 3, 4, 5], 1), ([1, 2, 3], 1)]):
        tree = build(sequences)
        assert tree.tokens.tolist() == [1, 2, 3, 4, 5]
        assert len(tree.segments) == 1
        assert sorted(tree.targets.tolist()) == [2, 3, 4, 5]


def test_a_single_sequence_is_a_plain_sequence() -> None:
    tree = build_tree([TokenSequence(np.array([5, 6, 7], np.int32), 2, 0)], [11], [0.75])
    assert tree.ends.tolist() == [3, 3, 3]
    assert (tree.sources.tolist(), tree.targets.tolist(), tree.owners.tolist()) == ([1], [7], [0])
    assert (tree.pair_ids, tree.confidences) == ((11,), (0.75,))


@pytest.mark.parametrize("sequences", [[], [([], 1)], [([1, 2], 0)]])
def test_sequences_that_cannot_be_predicted_are_refused(sequences: Forest) -> None:
    with pytest.raises(ValueError, match="before its first scored"):
        build(sequences)


# Pairs, and pairs within larger trees


def same(one: TokenTree, other: TokenTree) -> None:
    for name in ("tokens", "positions", "ends", "sources", "targets", "terms", "owners"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.segments, one.pair_ids, one.confidences) == (other.segments, other.pair_ids, other.confidences)


@given(forests(pairs=1))
def test_a_pair_is_built_without_a_search(sequences: Forest) -> None:
    chosen, rejected = (TokenSequence(np.array(t, np.int32), first, side) for side, (t, first) in enumerate(sequences))
    shared = shared_length(chosen.tokens, rejected.tokens)
    same(build_pair_tree(chosen, rejected, shared, 7, 0.75), build_tree([chosen, rejected], [7], [0.75]))


@given(st.lists(st.integers(0, 1), max_size=6), st.lists(st.integers(0, 1), max_size=6))
def test_the_shared_length_is_counted(one: list[int], other: list[int]) -> None:
    expected = 0
    while one[: expected + 1] == other[: expected + 1] and expected < min(len(one), len(other)):
        expected += 1
    assert shared_length(np.array(one, np.int32), np.array(other, np.int32)) == expected


@given(forests(pairs=4))
def test_own_predictions_are_found_in_the_merged_tree(sequences: Forest) -> None:
    """Same context, same target: whatever was computed for a pair alone belongs there."""
    merged = build(sequences)
    own = [build(sequences[2 * k : 2 * k + 2]) for k in range(len(sequences) // 2)]
    for tree, found in zip(own, places_in(merged, own), strict=True):
        assert len(found) == len(tree.targets)
        for mine, its in enumerate(found):
            contexts = [t.tokens[places(t, t.sources[n])].tolist() for t, n in ((tree, mine), (merged, its))]
            assert contexts[0] == contexts[1]
            assert tree.targets[mine] == merged.targets[its]


def test_one_sided_pairs_are_found_too() -> None:
    """One response an example: supervised data of one problem."""
    sequences = [[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]
    merged = build_tree(
        [TokenSequence(np.array(p, np.int32), 1, n) for n, p in enumerate(sequences)], range(3), [1.0] * 3
    )
    own = [build_tree([TokenSequence(np.array(p, np.int32), 1, 0)], [n], [1.0]) for n, p in enumerate(sequences)]
    found = places_in(merged, own)
    assert [merged.targets[places].tolist() for places in found] == [[2, 3], [2, 4], [2, 3, 5]]


def test_a_deep_chain_needs_no_deep_stack() -> None:
    """1,500 forks below one another."""
    length = 1500
    chain = np.zeros(length + 1, np.int32)
    sequences = [TokenSequence(chain, 1, 0)]
    sequences += [TokenSequence(np.r_[chain[:n], 1].astype(np.int32), n, n) for n in range(1, length)]
    tree = build_tree(sequences, range(length // 2), [1.0] * (length // 2))
    assert len(tree) == length + 1 + (length - 1)
    assert tree.ends[0] == len(tree)
