"""Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417): DPO without its reference, and supervised."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


@dataclass(frozen=True)
class CPO:
    """loss = -log sigmoid(beta (chosen_logp - rejected_logp)) - sft_weight chosen_logp / tokens

    The first term is DPO with a reference that finds both sides equally likely. Rewards are beta logp.
    """

    beta: float = 0.1
    sft_weight: float = 1.0
    """Weight of the second term, a mean over the chosen side's tokens; 0 leaves the preference alone."""
    sft_scope: SftScope = SftScope.scored

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected")

    @property
    def length_normalised(self) -> bool:
        return self.sft_weight > 0

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B, rejected_B = self.beta * scores.chosen_logps_B, self.beta * scores.rejected_logps_B
        out = LossOutput(-F.logsigmoid(chosen_B - rejected_B), chosen_B.detach(), rejected_B.detach())
        return out.with_nll(scores, self.sft_weight)
