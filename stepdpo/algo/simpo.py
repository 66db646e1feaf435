"""SimPO (Meng et al. 2024, arXiv 2405.14734): mean log-probabilities and a margin, without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


@dataclass(frozen=True)
class SimPO:
    """loss = -log sigmoid(beta (a_chosen - a_rejected) - gamma), gamma = beta gamma_beta_ratio,

    with a the mean log-probability of a side's scored tokens. A constant added to every token of both sides changes
    nothing. With gamma = 0 and n tokens on either side it is CPO's preference term at beta / n. Rewards are beta a.
    """

    beta: float = 2.0
    """The authors use 2.0 to 2.5, and 10 for their later models: it multiplies means and not sums."""
    gamma_beta_ratio: float = 0.5
    """gamma / beta, in nats a token, as in the authors' code; they use 0.1 to 0.8."""
    sft_weight: float = 0.0
    """Weight of the negative log-likelihood of the chosen side, a mean over its tokens."""
    sft_scope: SftScope = SftScope.scored

    length_normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, gamma_beta_ratio=self.gamma_beta_ratio, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected")

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B, rejected_B = scores.chosen_logps_per_token_B, scores.rejected_logps_per_token_B
        beyond_B = chosen_B - rejected_B - self.gamma_beta_ratio
        out = LossOutput(
            losses_B=-F.logsigmoid(self.beta * beyond_B),
            chosen_rewards_B=self.beta * chosen_B.detach(),
            rejected_rewards_B=self.beta * rejected_B.detach(),
            metrics_B={"above_gamma": (beyond_B.detach() > 0).double()},
        )
        return out.with_nll(scores, self.sft_weight)
