"""Token-level DPO (Zeng et al. 2024, arXiv 2404.11999)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope


class Form(Enum):
    """Which of the paper's two losses, written out under TDPO."""

    tdpo1 = "tdpo1"
    """Both sides' KL count whole, and both have a gradient."""
    tdpo2 = "tdpo2"
    """The difference is weighed by `alpha`, and the chosen side's KL has no gradient."""


@dataclass(frozen=True)
class TDPO:
    """DPO plus the difference of the two sides' sequential KL to the reference.

    With z = chosen_logratio - rejected_logratio, K the summed KL(reference, policy) and sg the stop-gradient:
    tdpo1  loss = -log sigmoid(beta (z - (K_rejected - K_chosen)))
    tdpo2  loss = -log sigmoid(beta (z - alpha (K_rejected - sg K_chosen)))

    alpha = 0 makes tdpo2 DPO. At policy = reference both have the loss and the gradient of DPO. Rewards follow
    the authors: beta (logratio + K), without alpha; `logit` is the margin the loss really sees.
    """

    beta: float = 0.4
    """The article's value; the TDPO paper uses 0.1."""
    alpha: float = 0.5
    """Weight of the KL difference in tdpo2."""
    form: Form = Form.tdpo2
    """The paper's README says tdpo1 suits low learning rates, tdpo2 higher ones."""
    sft_weight: float = 0.0
    """Weight of the chosen side's negative log-likelihood, a mean over its tokens (IRPO, arXiv 2404.19733: 1)."""
    sft_scope: SftScope = SftScope.scored

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        at_least(0, alpha=self.alpha, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected", "reference", "kl")

    @property
    def length_normalised(self) -> bool:
        return self.sft_weight > 0

    def __call__(self, scores: PairScores) -> LossOutput:
        assert scores.chosen_kl_B is not None
        assert scores.rejected_kl_B is not None
        plain_B = scores.chosen_logratios_B - scores.rejected_logratios_B
        if self.form is Form.tdpo1:
            z_B = plain_B - (scores.rejected_kl_B - scores.chosen_kl_B)
        else:
            # A larger KL of the chosen side lowers the loss. As a constant it rewards no drift from the reference
            # there, while the rejected side's is still held down.
            z_B = plain_B - self.alpha * (scores.rejected_kl_B - scores.chosen_kl_B.detach())
        chosen_kl_B, rejected_kl_B = scores.chosen_kl_B.detach(), scores.rejected_kl_B.detach()
        out = LossOutput(
            losses_B=-F.logsigmoid(self.beta * z_B),
            chosen_rewards_B=self.beta * (scores.chosen_logratios_B.detach() + chosen_kl_B),
            rejected_rewards_B=self.beta * (scores.rejected_logratios_B.detach() + rejected_kl_B),
            metrics_B={
                "kl/chosen": chosen_kl_B,
                "kl/rejected": rejected_kl_B,
                "kl/margin": chosen_kl_B - rejected_kl_B,
                "logit": self.beta * z_B.detach(),
                "dpo_margin": self.beta * plain_B.detach(),
            },
        )
        return out.with_nll(scores, self.sft_weight)
