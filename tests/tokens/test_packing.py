"""Which pairs share a tree: in order, as many as fit, with sizes as if the trees had been grown."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.tokens.packing import pack_trees
from stepdpo.tokens.token_tree import TokenSequence, build_tree

Forest = list[list[list[int]]]
"""Token lists of the paths of each pair."""
PATHS = st.lists(st.integers(0, 2), min_size=2, max_size=8)
FORESTS = st.lists(st.lists(PATHS, min_size=1, max_size=2), max_size=8)


def planted(forest: Forest) -> list[list[TokenSequence]]:
    return [
        [TokenSequence(np.array(tokens, np.int32), 1, side) for side, tokens in enumerate(paths)] for paths in forest
    ]


@given(FORESTS, st.integers(1, 40))
def test_bundles_are_as_large_as_their_trees(forest: Forest, budget: int) -> None:
    pairs = planted(forest)
    bundles = pack_trees(pairs, budget)
    assert [m for b in bundles for m in b.members] == list(range(len(pairs)))
    for one in bundles:
        paths = [path for member in one.members for path in pairs[member]]
        assert one.size == len(build_tree(paths, [], []))
        assert one.size <= budget or len(one.members) == 1


@given(FORESTS, st.integers(1, 40))
def test_no_bundle_could_have_taken_the_next_pair(forest: Forest, budget: int) -> None:
    pairs = planted(forest)
    bundles = pack_trees(pairs, budget)
    for one, following in pairwise(bundles):
        together = [path for member in (*one.members, following.members[0]) for path in pairs[member]]
        assert len(build_tree(together, [], [])) > budget


def test_a_chain_by_hand() -> None:
    """0 1|2, then 0 1 3|4: tokens 0 1 2 are three, 3 and 4 two more."""
    pairs = planted([[[0, 1], [0, 2]], [[0, 1, 3], [0, 1, 4]]])
    assert [(b.members, b.size) for b in pack_trees(pairs, 5)] == [((0, 1), 5)]
    assert [(b.members, b.size) for b in pack_trees(pairs, 4)] == [((0,), 3), ((1,), 4)]
