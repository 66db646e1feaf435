"""How trees are laid into a row."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from stepdpo.tokens.collator import collate
from stepdpo.tokens.token_tree import TokenSequence, build_tree


def test_collate_packs_without_loss() -> None:
    """Each response of each tree is found again in the packed row: its whole sequence, in order, with its positions."""
    sequences = [
        [([7, 8, 9, 1, 2], 2), ([7, 8, 9, 3], 2)],
        [([4, 4, 4], 1)],
        [([1, 2], 1), ([1, 3, 3, 3], 1)],
    ]
    trees = [
        build_tree(
            [TokenSequence(np.array(t, np.int32), f, o) for o, (t, f) in enumerate(sides)], [10 + n], [1 - n / 10]
        )
        for n, sides in enumerate(sequences)
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
    assert batch.responses == (2, 1, 2)
    for response, (tokens, first) in enumerate(itertools.chain(*sequences)):
        expected = [(tokens[:n], tokens[n]) for n in range(first, len(tokens))]
        assert sorted(found.pop(response), key=lambda t: len(t[0])) == expected
    assert not found


def test_packed_segments_are_shifted_with_their_trees() -> None:
    tree = build_tree(
        [TokenSequence(np.array(t, np.int32), 1, o) for o, t in enumerate(([1, 2, 3], [1, 4]))], [0], [1.0]
    )
    segments = collate([tree, tree]).segments
    assert [(s.start, s.stop, s.ancestors) for s in segments] == [
        (0, 3, ()),
        (3, 4, ((0, 1),)),
        (4, 7, ()),
        (7, 8, ((4, 5),)),
    ]
