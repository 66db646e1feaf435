"""How trees share pieces, and how they are packed into a row."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.tokens.collator import balance, collate
from stepdpo.tokens.token_tree import TokenSequence, build_tree


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100), st.integers(1, 5))
def test_plan_is_fair(sizes: list[int], budget: int, world: int) -> None:
    lists = balance(sizes, budget, world)
    assert sorted(i for members in lists for i in members) == list(range(len(sizes)))
    assert len(lists) % world == 0
    assert len(lists) >= world
    assert balance(sizes, budget, world) == lists
    loads = [sum(sizes[i] for i in members) for members in lists]
    assert all(load <= budget or len(members) == 1 for load, members in zip(loads, lists, strict=True))
    heaviest = max(range(len(lists)), key=loads.__getitem__)
    assert loads[heaviest] - min((sizes[i] for i in lists[heaviest]), default=0) <= min(loads)


def test_plan_is_tight_enough() -> None:
    """Twelve trees of 5 in lists of at most 20 need three lists."""
    assert [len(members) for members in balance([5] * 12, 20, 1)] == [4, 4, 4]
    assert [len(members) for members in balance([5] * 12, 20, 2)] == [3, 3, 3, 3]
    assert balance([50], 20, 2) == [[0], []]


def test_trees_over_the_budget_make_no_empty_lists() -> None:
    """An empty list costs every process a stand-in pass."""
    assert balance([50, 50, 50], 20, 1) == [[0], [1], [2]]


def test_collate_packs_without_loss() -> None:
    """Each response of each tree is found again in the packed row: its whole path, in order, with its positions."""
    paths = [
        [([7, 8, 9, 1, 2], 2), ([7, 8, 9, 3], 2)],
        [([4, 4, 4], 1)],
        [([1, 2], 1), ([1, 3, 3, 3], 1)],
    ]
    trees = [
        build_tree(
            [TokenSequence(np.array(t, np.int32), f, o) for o, (t, f) in enumerate(sides)], [10 + n], [1 - n / 10]
        )
        for n, sides in enumerate(paths)
    ]
    batch = collate(trees)
    row, positions, ends = batch.input_ids_RL[0], batch.position_ids_RL[0], batch.ends_RL[0]
    assert len(row) == sum(map(len, trees))
    assert batch.pair_ids == (10, 11, 12)
    assert batch.pairs == 3
    torch.testing.assert_close(batch.confidence_B, torch.tensor([1.0, 0.9, 0.8]))
    found: dict[int, list[tuple[list[int], int]]] = {}
    for term, owner in zip(batch.term_E.tolist(), batch.owner_E.tolist(), strict=True):
        source = int(batch.source_T[term])
        seen = [k for k in range(source + 1) if source < ends[k]]
        assert positions[seen].tolist() == list(range(len(seen)))
        found.setdefault(owner, []).append((row[seen].tolist(), int(batch.target_T[term])))
    for number, sides in enumerate(paths):
        for side, (tokens, first) in enumerate(sides):
            expected = [(tokens[:n], tokens[n]) for n in range(first, len(tokens))]
            assert sorted(found.pop(2 * number + side), key=lambda t: len(t[0])) == expected
    assert not found


def test_packed_runs_are_shifted_with_their_trees() -> None:
    tree = build_tree(
        [TokenSequence(np.array(t, np.int32), 1, o) for o, t in enumerate(([1, 2, 3], [1, 4]))], [0], [1.0]
    )
    runs = collate([tree, tree]).segments
    assert [(r.start, r.stop, r.ancestors) for r in runs] == [
        (0, 3, ()),
        (3, 4, ((0, 1),)),
        (4, 7, ()),
        (7, 8, ((4, 5),)),
    ]
