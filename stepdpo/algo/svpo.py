"""A preference between steps and their values at once, after SVPO (Chen et al. 2024, arXiv 2406.10858)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch

from stepdpo.core.ranges import at_least, below_one, positive
from stepdpo.tokens.pair_scores import LossOutput, sigmoid_loss
from stepdpo.tokens.step_scores import Squash, StepScores, Trunk, ValueHeadSpec


class Margin(Enum):
    """How far the chosen step's value must lie above the rejected one's."""

    gap = "gap"
    """`m`, or Q_chosen - Q_rejected where that is less: then the margin asks for no more than the values say."""
    fixed = "fixed"
    """`m`."""


@dataclass(frozen=True)
class SVPO:
    """loss = preference DPO + value ((V_w - Q_w)^2 + (V_l - Q_l)^2) / 2 + rank max(0, m - (V_w - V_l)) + sft NLL

    with V = tanh of the value head at the last token of each side, Q in [-1, 1] that side's value in the data (a side
    without one has no value term), NLL that of the chosen side, a mean over its tokens. The paper's formula, weights
    and margin could be read nowhere: this is our reading of its outline, and each term can be had alone.
    """

    beta: float = 0.1
    preference: float = 1.0
    value: float = 1.0
    rank: float = 1.0
    sft: float = 0.1
    m: float = 0.5
    margin: Margin = Margin.gap
    trunk: Trunk = Trunk.live
    dropout: float = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({"rejected", "reference", "steps", "values"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)
        at_least(0, preference=self.preference, value=self.value, rank=self.rank, sft=self.sft, m=self.m)
        below_one(dropout=self.dropout)
        if self.trunk is Trunk.frozen and (self.preference or self.sft):
            raise ValueError("trunk=frozen trains nothing but the value head: set preference=0 and sft=0")

    @property
    def value_head(self) -> ValueHeadSpec:
        return ValueHeadSpec(Squash.tanh, self.dropout, self.trunk)

    def __call__(self, scores: StepScores) -> LossOutput:
        assert scores.values_S is not None
        ratio_B2 = scores.by_response(scores.logratios_E).view(-1, 2)
        dpo_B = sigmoid_loss(self.beta, ratio_B2[:, 0] - ratio_B2[:, 1], scores.confidence_B)
        nll_B = (-scores.logps_R / scores.tokens_R.clamp(min=1)).view(-1, 2)[:, 0]
        value_B2 = scores.values_S.tanh()[scores.last_S].view(-1, 2)
        target_B2 = 2 * scores.label_S[scores.last_S].double().view(-1, 2) - 1
        known_B2 = ~target_B2.isnan()
        error_B = (torch.where(known_B2, value_B2 - target_B2.nan_to_num(), 0.0) ** 2).sum(1) / 2
        lead_B = value_B2[:, 0] - value_B2[:, 1]
        margin_B = torch.full_like(lead_B, self.m)
        if self.margin is Margin.gap:
            gap_B = (target_B2[:, 0] - target_B2[:, 1]).nan_to_num(nan=self.m)
            margin_B = margin_B.minimum(gap_B)
        hinge_B = (margin_B - lead_B).clamp(min=0)
        rewards_B2 = self.beta * ratio_B2.detach()
        return LossOutput(
            losses_B=self.preference * dpo_B + self.value * error_B + self.rank * hinge_B + self.sft * nll_B,
            chosen_rewards_B=rewards_B2[:, 0],
            rejected_rewards_B=rewards_B2[:, 1],
            metrics_B={
                "nll": nll_B.detach(),
                "loss/preference": dpo_B.detach(),
                "value/mse": error_B.detach(),
                "value/hinge": hinge_B.detach(),
                "value/accuracy": (lead_B.detach() > 0).double(),
            },
        )
