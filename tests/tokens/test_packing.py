"""Which pairs share a tree: in order, as many as fit, sized without building it; and which trees a micro-batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.tokens.packing import balance, pack_trees
from stepdpo.tokens.token_tree import TokenSequence, build_tree

Forest = list[list[list[int]]]
"""Token lists of the sequences of each pair."""
SEQUENCES = st.lists(st.integers(0, 2), min_size=2, max_size=8)
FORESTS = st.lists(st.lists(SEQUENCES, min_size=1, max_size=2), max_size=8)


def token_sequences(forest: Forest) -> list[list[TokenSequence]]:
    return [
        [TokenSequence(np.array(tokens, np.int32), 1, side) for side, tokens in enumerate(sequences)]
        for sequences in forest
    ]


@given(FORESTS, st.integers(1, 40))
def test_packs_are_as_large_as_their_trees(forest: Forest, budget: int) -> None:
    pairs = token_sequences(forest)
    packs = pack_trees(pairs, budget)
    assert [m for pack in packs for m in pack.members] == list(range(len(pairs)))
    for pack in packs:
        sequences = [sequence for member in pack.members for sequence in pairs[member]]
        assert pack.size == len(build_tree(sequences, [], []))
        assert pack.size <= budget or len(pack.members) == 1


@given(FORESTS, st.integers(1, 40))
def test_no_pack_could_have_taken_the_next_pair(forest: Forest, budget: int) -> None:
    pairs = token_sequences(forest)
    packs = pack_trees(pairs, budget)
    for one, following in pairwise(packs):
        together = [sequence for member in (*one.members, following.members[0]) for sequence in pairs[member]]
        assert len(build_tree(together, [], [])) > budget


def test_a_chain_by_hand() -> None:
    """0 1|2, then 0 1 3|4: tokens 0 1 2 are three, 3 and 4 two more."""
    pairs = token_sequences([[[0, 1], [0, 2]], [[0, 1, 3], [0, 1, 4]]])
    assert [(pack.members, pack.size) for pack in pack_trees(pairs, 5)] == [((0, 1), 5)]
    assert [(pack.members, pack.size) for pack in pack_trees(pairs, 4)] == [((0,), 3), ((1,), 4)]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100), st.integers(1, 5))
def test_micro_batches_are_balanced(sizes: list[int], budget: int, world_size: int) -> None:
    lists = balance(sizes, budget, world_size)
    assert sorted(i for members in lists for i in members) == list(range(len(sizes)))
    assert len(lists) % world_size == 0
    assert len(lists) >= world_size
    assert balance(sizes, budget, world_size) == lists
    tokens = [sum(sizes[i] for i in members) for members in lists]
    assert all(total <= budget or len(members) == 1 for total, members in zip(tokens, lists, strict=True))
    heaviest = max(range(len(lists)), key=tokens.__getitem__)
    assert tokens[heaviest] - min((sizes[i] for i in lists[heaviest]), default=0) <= min(tokens)


def test_there_are_no_more_micro_batches_than_needed() -> None:
    """Twelve trees of 5 in lists of at most 20 need three lists."""
    assert [len(members) for members in balance([5] * 12, 20, 1)] == [4, 4, 4]
    assert [len(members) for members in balance([5] * 12, 20, 2)] == [3, 3, 3, 3]
    assert balance([50], 20, 2) == [[0], []]


def test_trees_over_the_budget_make_no_empty_lists() -> None:
    """An empty list costs every process a stand-in pass."""
    assert balance([50, 50, 50], 20, 1) == [[0], [1], [2]]
