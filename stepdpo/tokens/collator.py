"""TokenTree -> TreeBatch: the crossing from integers to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stepdpo.tokens.batch import SIDES, TreeBatch
from stepdpo.tokens.token_tree import Ints, Segment, TokenTree, places_in


def collate(trees: Sequence[TokenTree], own: Mapping[int, Sequence[TokenTree]] | None = None) -> TreeBatch:
    """Trees one after another in one row. Shapes and meanings: TreeBatch.

    `own`: for a tree (by its index) that several pairs were merged into, the tree that each of them makes alone.
    """
    # What indexes into something of its own tree moves by as much of it as lies before that tree.
    starts = np.cumsum([0] + [len(t) for t in trees])
    scored = np.cumsum([0] + [len(t.targets) for t in trees])
    firsts = np.cumsum([0] + [len(t.pair_ids) for t in trees])

    def joined(name: str, shifts: Any) -> torch.Tensor:
        parts = [getattr(t, name) + shift for t, shift in zip(trees, shifts, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    nothing = [0] * len(trees)
    return TreeBatch(
        input_ids_RL=joined("tokens", nothing)[None],
        position_ids_RL=joined("positions", nothing)[None],
        ends_RL=joined("ends", starts[:-1])[None],
        segments=tuple(
            _shift(segment, int(start)) for t, start in zip(trees, starts[:-1], strict=True) for segment in t.segments
        ),
        source_T=joined("sources", starts[:-1]),
        target_T=joined("targets", nothing),
        term_E=joined("terms", scored[:-1]),
        owner_E=joined("owners", SIDES * firsts[:-1]),
        confidence_B=torch.tensor([c for t in trees for c in t.confidences], dtype=torch.float32),
        pair_ids=tuple(i for t in trees for i in t.pair_ids),
        prediction_P=_prediction(trees, own, scored) if own else None,
    )


def _prediction(trees: Sequence[TokenTree], own: Mapping[int, Sequence[TokenTree]], starts: Ints) -> torch.Tensor:
    """Where the predictions of each pair's own tree are in the batch, pair by pair.

    The reference's scores are kept pair by pair, whatever tree the pair was in, and are laid beside the batch by this.
    """
    found: list[Ints] = []
    for number, tree in enumerate(trees):
        alone = own.get(number)
        places = places_in(tree, alone) if alone else [np.arange(len(tree.targets), dtype=np.int32)]
        found += [place + starts[number] for place in places]
    return torch.from_numpy(np.concatenate(found).astype(np.int64))


def _shift(segment: Segment, by: int) -> Segment:
    return Segment(
        segment.row, segment.start + by, segment.stop + by, tuple((a + by, b + by) for a, b in segment.ancestors)
    )
