"""DPO in which steps, or tokens, count differently: a weighted sum of log-ratios a side."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from stepdpo.core.ranges import positive
from stepdpo.tokens.pair_scores import LossOutput, sigmoid_loss
from stepdpo.tokens.step_scores import StepScores


class Weigh(Enum):
    """What the weight w of a term is, besides what the data say."""

    data = "data"
    """Nothing: the data's weights alone."""
    labels = "labels"
    """How right its step is on the chosen side, how wrong it is on the rejected one; 1 where nobody knows."""
    first_error = "first_error"
    """On the rejected side 1 in the first wrong step and 0 elsewhere (1 throughout where none is known to be wrong)."""


@dataclass(frozen=True)
class StepWeighted:
    """loss = -(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z), z = sum of w d over chosen - the same over rejected

    with d the log-ratio of a scored token and e = 1 - the pair's confidence. Where every w is 1 it is DPO. With 0/1
    weights it is the masked loss of SCDPO (arXiv 2407.00782); with w = 1 - s on the rejected side, s the score of a
    token under contrasted models, it is what cDPO means (arXiv 2411.19943). The weights have no gradient.
    """

    beta: float = 0.4
    weigh: Weigh = Weigh.data

    needs: ClassVar[frozenset[str]] = frozenset({"rejected", "reference", "steps"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)

    def __call__(self, scores: StepScores) -> LossOutput:
        weight_E = scores.weight_E * self._step_weights(scores)[scores.step_E]
        sums_B2 = scores.by_response(weight_E * scores.logratios_E).view(-1, 2)
        z_B = sums_B2[:, 0] - sums_B2[:, 1]
        plain_B2 = scores.by_response(scores.logratios_E.detach()).view(-1, 2)
        share_B2 = (scores.by_response(weight_E) / scores.tokens_R.clamp(min=1)).view(-1, 2)
        return LossOutput(
            losses_B=sigmoid_loss(self.beta, z_B, scores.confidence_B),
            chosen_rewards_B=self.beta * sums_B2[:, 0].detach(),
            rejected_rewards_B=self.beta * sums_B2[:, 1].detach(),
            metrics_B={
                "weights/chosen": share_B2[:, 0],
                "weights/rejected": share_B2[:, 1],
                "dpo_margin": self.beta * (plain_B2[:, 0] - plain_B2[:, 1]),
            },
        )

    def _step_weights(self, scores: StepScores) -> Tensor:
        """(S,)"""
        label_S, rejected_S = scores.label_S, scores.response_S % 2 == 1
        known_S = ~label_S.isnan()
        if self.weigh is Weigh.labels:
            return torch.where(known_S, torch.where(rejected_S, 1 - label_S, label_S), 1.0)
        if self.weigh is Weigh.first_error:
            first_S = scores.first_error_S
            told_R = scores.by_response_of_steps(first_S.double()) > 0
            return torch.where(rejected_S & told_R[scores.response_S], first_S.float(), 1.0)
        return torch.ones_like(label_S)
