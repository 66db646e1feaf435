"""A list-wise loss over all leaves of a problem's tree, after tree preference optimisation (arXiv 2410.12854)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.core.ranges import positive
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import StepScores


class Rank(Enum):
    """How much a pair of responses counts."""

    plain = "plain"
    """Every pair as much as any other."""
    lambda_rank = "lambda_rank"
    """By what the discounted gain would lose if the two changed places (LambdaRank), by the ranks of the moment."""


@dataclass(frozen=True)
class TPO:
    """loss = sum over pairs (i better than j) of l_ij (-log sigmoid(v_i - v_j)) / sum of l_ij, v = beta d

    with d the log-ratio of a whole response, and l_ij = 1 or |2^y_i - 2^y_j| |1/log2(1 + rank_i) - 1/log2(1 + rank_j)|,
    y in [0, 1] how right a response is. Two responses with l = 1 are DPO; the order of the responses changes nothing;
    equally right ones add nothing. The released code of the paper trains backwards (its outer -log sigmoid falls as the
    rank loss rises) and reads every token's score at one place: this is our definition.
    """

    beta: float = 0.4
    rank: Rank = Rank.plain

    needs: ClassVar[frozenset[str]] = frozenset({"group", "reference", "steps", "labels"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)

    def __call__(self, scores: StepScores) -> LossOutput:
        better_P, worse_P = scores.ranked_pairs()
        value_R = self.beta * scores.by_response(scores.logratios_E)
        losses_P = -F.logsigmoid(value_R[better_P] - value_R[worse_P])
        weight_P = self._weights(scores, value_R.detach(), better_P, worse_P)
        rewards_R = value_R.detach()
        ordered_P = (rewards_R[better_P] > rewards_R[worse_P]).double()
        return LossOutput(
            losses_B=scores.mean_of_pairs(losses_P, better_P, weight_P),
            chosen_rewards_B=rewards_R[scores.best_B],
            rejected_rewards_B=rewards_R[scores.worst_B],
            metrics_B={"ranking/ordered": scores.mean_of_pairs(ordered_P, better_P)},
        )

    def _weights(self, scores: StepScores, value_R: Tensor, better_P: Tensor, worse_P: Tensor) -> Tensor:
        if self.rank is Rank.plain:
            return torch.ones_like(value_R[better_P])
        same_RR = scores.example_R[:, None] == scores.example_R[None]
        rank_R = 1 + (same_RR & (value_R[None] > value_R[:, None])).sum(1)
        gain_R, discount_R = scores.label_R.double().exp2(), 1 / torch.log2(1 + rank_R.double())
        weight_P = (gain_R[better_P] - gain_R[worse_P]).abs() * (discount_R[better_P] - discount_R[worse_P]).abs()
        # Values that are all equal, as at the start, have one rank: then no pair would count, and nothing would move.
        total_B = scores.sum_of_pairs(weight_P, better_P)
        return torch.where(total_B[scores.example_R[better_P]] > 0, weight_P, 1.0)
