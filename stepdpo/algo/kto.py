"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306) on both sides of a pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


@dataclass(frozen=True)
class KTO:
    """loss = desirable (1 - sigmoid(beta (d_chosen - z0))) + undesirable (1 - sigmoid(beta (z0 - d_rejected)))

    with d the log-ratio of a side and z0 = max(0, mean log-ratio of mismatched question-response pairs), a constant
    estimated anew for every global batch. At policy = reference z0 = 0 and the loss is (desirable + undesirable) / 2.
    """

    beta: float = 0.4
    """The KTO paper and Eurus use 0.1."""
    desirable: float = 1.0
    undesirable: float = 1.0
    sft_weight: float = 0.0
    """Weight of the chosen side's negative log-likelihood, a mean over its tokens (IRPO, arXiv 2404.19733: 1)."""
    sft_scope: SftScope = SftScope.scored

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, desirable=self.desirable, undesirable=self.undesirable, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected", "reference", "reference_point")

    @property
    def length_normalised(self) -> bool:
        return self.sft_weight > 0

    def __call__(self, scores: PairScores) -> LossOutput:
        assert scores.reference_point is not None
        # A point of reference and no aim: a gradient through it would train on the mismatched pairs it comes from.
        z0 = scores.reference_point.detach()
        chosen_B, rejected_B = scores.chosen_logratios_B, scores.rejected_logratios_B
        losses_B = self.desirable * (1 - torch.sigmoid(self.beta * (chosen_B - z0)))
        losses_B = losses_B + self.undesirable * (1 - torch.sigmoid(self.beta * (z0 - rejected_B)))
        out = LossOutput(
            losses_B=losses_B,
            chosen_rewards_B=self.beta * chosen_B.detach(),
            rejected_rewards_B=self.beta * rejected_B.detach(),
            metrics_B={"reference_point": z0.expand_as(chosen_B)},
        )
        return out.with_nll(scores, self.sft_weight)
