"""Noise contrastive alignment for pairs (Chen et al. 2024, arXiv 2402.05369)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


@dataclass(frozen=True)
class NCA:
    """loss = -log sigmoid(r_chosen) - 1/2 log sigmoid(-r_chosen) - 1/2 log sigmoid(-r_rejected), r = beta logratio.

    Raises the chosen side in absolute terms, not only against the rejected one. At policy = reference it is 2 log 2.
    """

    beta: float = 0.4
    """Eurus uses 0.1."""
    sft_weight: float = 0.0
    """Weight of the chosen side's negative log-likelihood, a mean over its tokens (IRPO, arXiv 2404.19733: 1)."""
    sft_scope: SftScope = SftScope.scored

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected", "reference")

    @property
    def length_normalised(self) -> bool:
        return self.sft_weight > 0

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B = self.beta * scores.chosen_logratios_B
        rejected_B = self.beta * scores.rejected_logratios_B
        # The chosen side is data in the first term and noise in the second, which halts its reward: its own part of
        # the loss is least at sigmoid(r) = 2/3.
        losses_B = -F.logsigmoid(chosen_B) - 0.5 * F.logsigmoid(-chosen_B) - 0.5 * F.logsigmoid(-rejected_B)
        return LossOutput(losses_B, chosen_B.detach(), rejected_B.detach()).with_nll(scores, self.sft_weight)
