"""The tensors a training step passes on, with their shapes.

Shape letters: L positions of a row (of which there is one), T scored tokens, E (token, response) terms, P scored
tokens counted example by example, B examples (mostly pairs), R responses, S steps of responses, H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from stepdpo.tokens.trie import Segment

CHOSEN, REJECTED = 0, 1
SIDES = 2
"""Responses of a pair."""


@dataclass(frozen=True)
class StepBatch:
    """The steps of a batch's responses, response by response."""

    step_E: Tensor
    """The step that a term belongs to."""
    weight_E: Tensor
    """What the data say a term counts; 1 where they say nothing."""
    end_S: Tensor
    """Flat index of the hidden state at the last token of each step."""
    response_S: Tensor
    label_S: Tensor
    """How right each step is, in [0, 1]; NaN where nobody knows."""
    label_R: Tensor
    """How right each response is as a whole, in [0, 1]; NaN where nobody knows."""

    def to(self, device: torch.device | str) -> StepBatch:
        """The same with all its tensors on a device."""
        return StepBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class TreeBatch:
    """Several token trees, packed one after another into rows without padding between them.

    Position i of a row may attend to position j iff `j <= i and i < ends[j]`.
    """

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    """Depth in the tree: a branch continues where its trunk ended."""
    ends_RL: Tensor
    """First index of the row that may no longer see this one; padding at a row's end is a tree of its own."""
    segments: tuple[Segment, ...]
    """The same visibility as contiguous segments, for attention without a mask."""
    source_T: Tensor
    """Flat index (row * L + position) of the hidden state that predicts the scored token."""
    target_T: Tensor
    """Token id that is predicted there."""
    term_E: Tensor
    """Index into T; a scored token of the trunk has a term for each response."""
    owner_E: Tensor
    """Response the term counts for. Those of an example follow one another: in pairs 2 * pair + side, the chosen side
    first."""
    confidence_B: Tensor
    pair_ids: tuple[int, ...]
    """Number of each example in the data set: the key of its reference scores."""
    responses: tuple[int, ...]
    """How many responses each example has: 2 in a pair, 1 where there is no rejected side."""
    prediction_P: Tensor | None = None
    """Index into T: example by example, the predictions of the tree that it makes alone, in that tree's order.

    None where no tree is of several examples: then it is 0, 1, 2, ...
    """
    steps: StepBatch | None = None
    """For losses that look at steps."""
    reference_logps_R: Tensor | None = None
    """The reference's summed log-probability of each response, in nats; None where the loss knows no reference."""
    reference_hidden_TH: Tensor | None = None
    """The reference's final hidden states that predict the scored tokens, for a KL; None without one."""
    reference_logps_T: Tensor | None = None
    """The reference's log-probability of each scored token, where there are steps."""

    @property
    def pairs(self) -> int:
        """B: how many examples the batch holds, which mostly are pairs."""
        return len(self.pair_ids)

    def to(self, device: torch.device | str) -> TreeBatch:
        """The batch with all its tensors on a device."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            moved[f.name] = value.to(device) if isinstance(value, Tensor | StepBatch) else value
        return TreeBatch(**moved)


def sum_by_owner(values_T: Tensor, term_E: Tensor, owner_E: Tensor, owners: int) -> Tensor:
    """Sum of each response's own terms, shape (owners,), in fp64: a loss is a small difference of such sums.

    A solution's log-probability is hundreds of nats, of which fp32 keeps five digits after the point; what the loss
    wants is how far policy and reference, chosen and rejected lie apart.
    """
    return values_T.new_zeros(owners, dtype=torch.float64).index_add(0, owner_E, values_T[term_E].double())
