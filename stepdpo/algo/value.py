"""AlphaMath's policy and value loss (Chen et al. 2024, arXiv 2405.03553): imitate right solutions, value every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from stepdpo.core.ranges import at_least, below_one
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import Squash, StepScores, Trunk, ValueHeadSpec


@dataclass(frozen=True)
class Value:
    """loss = sft [right] NLL / tokens + weight * mean over labelled steps of (V_s - Q_s)^2, of a single response

    with V = tanh of the value head, Q = 2 label - 1 in [-1, 1]; the last step has the response's label where it has
    none of its own. A response is right where its label is at least 1/2. A response without any label teaches nothing.
    """

    weight: float = 0.01
    """Of the values beside the imitation. The paper's text has 0.01, its table 0.1; it adds up steps, we average."""
    sft: float = 1.0
    trunk: Trunk = Trunk.live
    dropout: float = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired", "steps", "values"})

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight, sft=self.sft)
        below_one(dropout=self.dropout)
        if self.trunk is Trunk.frozen and self.sft:
            raise ValueError("trunk=frozen trains nothing but the value head: set sft=0")

    @property
    def value_head(self) -> ValueHeadSpec:
        return ValueHeadSpec(Squash.tanh, self.dropout, self.trunk)

    def __call__(self, scores: StepScores) -> LossOutput:
        assert scores.values_S is not None
        target_S = 2 * scores.label_or_outcome_S.double() - 1
        known_S = ~target_S.isnan()
        gap_S = torch.where(known_S, scores.values_S.tanh() - target_S.nan_to_num(), 0.0)
        count_R = scores.by_response_of_steps(known_S.double())
        error_R = scores.by_response_of_steps(gap_S**2) / count_R.clamp(min=1)
        nll_R = -scores.logps_R / scores.tokens_R.clamp(min=1)
        right_R = (scores.label_R >= 0.5).double()  # an unknown label, NaN, is not
        losses_R = self.sft * right_R * nll_R + self.weight * error_R
        sign_S = (scores.values_S > 0) == (target_S > 0)
        agree_R = scores.by_response_of_steps((known_S & sign_S).double()) / count_R.clamp(min=1)
        return LossOutput(
            losses_B=losses_R,
            chosen_rewards_B=torch.zeros_like(losses_R.detach()),
            rejected_rewards_B=torch.zeros_like(losses_R.detach()),
            metrics_B={
                "nll": nll_R.detach(),
                "value/mse": error_R.detach(),
                "value/accuracy": agree_R,
                "steps/labelled": count_R,
            },
        )
