"""Weighted preference optimisation (Zhou et al. 2024, arXiv 2406.11827): pairs count as the policy would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


@dataclass(frozen=True)
class WPO:
    """loss = -W log sigmoid(beta z), z = chosen_logratio - rejected_logratio: DPO, weighed pair by pair with

    W = min(1, exp(u_chosen + u_rejected)), u the mean over a side's scored tokens of log pi(y) - log sum_v pi(v)^2.

    W has no gradient. It is near 1 where the policy would write both sides itself, and near 0 where it would not. A
    uniform policy and one that is sure of either side have W = 1, and the loss is DPO. Rewards are DPO's.
    """

    beta: float = 0.01
    """The authors' value for Llama 3, on whole responses."""
    sft_weight: float = 0.0
    """Weight of the chosen side's negative log-likelihood, a mean over its tokens, which W does not touch."""
    sft_scope: SftScope = SftScope.scored

    length_normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected", "reference", "collision")

    def __call__(self, scores: PairScores) -> LossOutput:
        assert scores.chosen_collision_B is not None
        assert scores.rejected_collision_B is not None
        u_chosen_B = (scores.chosen_logps_B - scores.chosen_collision_B) / scores.chosen_tokens_B.clamp(min=1)
        u_rejected_B = (scores.rejected_logps_B - scores.rejected_collision_B) / scores.rejected_tokens_B.clamp(min=1)
        # Detached: through W, a loss could be lowered by making both sides less likely. And clamped: a token that is
        # likelier than its competitors together has u > 0.
        log_weight_B = (u_chosen_B + u_rejected_B).detach()
        weight_B = log_weight_B.clamp(max=0).exp()
        chosen_B, rejected_B = self.beta * scores.chosen_logratios_B, self.beta * scores.rejected_logratios_B
        out = LossOutput(
            losses_B=-weight_B * F.logsigmoid(chosen_B - rejected_B),
            chosen_rewards_B=chosen_B.detach(),
            rejected_rewards_B=rejected_B.detach(),
            metrics_B={"weight": weight_B, "weight_clamped": (log_weight_B > 0).double()},
        )
        return out.with_nll(scores, self.sft_weight)
