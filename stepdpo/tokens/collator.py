"""TokenTree -> TreeBatch: the crossing from integers to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stepdpo.tokens.batch import StepBatch, TreeBatch
from stepdpo.tokens.step_spans import Ints, TreeSteps
from stepdpo.tokens.token_tree import TokenTree, places_in
from stepdpo.tokens.trie import Segment


def collate(trees: Sequence[TokenTree], own: Mapping[int, Sequence[TokenTree]] | None = None) -> TreeBatch:
    """Trees one after another in one row. Shapes and meanings: TreeBatch.

    `own`: for a tree (by its index) that several pairs were merged into, the tree that each of them makes alone.
    """
    # What indexes into something of its own tree moves by as much of it as lies before that tree.
    starts = np.cumsum([0] + [len(t) for t in trees])
    scored = np.cumsum([0] + [len(t.targets) for t in trees])
    firsts = np.cumsum([0] + [sum(t.responses) for t in trees])

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
        owner_E=joined("owners", firsts[:-1]),
        confidence_B=torch.tensor([c for t in trees for c in t.confidences], dtype=torch.float32),
        pair_ids=tuple(i for t in trees for i in t.pair_ids),
        responses=tuple(count for t in trees for count in t.responses),
        prediction_P=_prediction(trees, own, scored) if own else None,
        steps=_steps([t.steps for t in trees if t.steps], starts, firsts),
    )


def _steps(steps: Sequence[TreeSteps], starts: Ints, firsts: Ints) -> StepBatch | None:
    """The steps of all trees, which all have them or none."""
    if not steps:
        return None
    counts = np.cumsum([0] + [len(one.ends) for one in steps])

    def joined(arrays: Iterable[Any], kind: torch.dtype, shifts: Iterable[Any]) -> torch.Tensor:
        parts = [torch.from_numpy(array.copy()).to(kind) + shift for array, shift in zip(arrays, shifts, strict=False)]
        return torch.cat(parts)

    nothing = [0] * len(steps)
    return StepBatch(
        step_E=joined((one.terms for one in steps), torch.int64, counts),
        weight_E=joined((one.weights for one in steps), torch.float32, nothing),
        end_S=joined((one.ends for one in steps), torch.int64, starts),
        response_S=joined((one.owners for one in steps), torch.int64, firsts),
        label_S=joined((one.labels for one in steps), torch.float32, nothing),
        label_R=joined((one.response_labels for one in steps), torch.float32, nothing),
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
