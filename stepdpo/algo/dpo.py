"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) and its pairwise relatives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive, within
from stepdpo.tokens.pair_scores import LossOutput, PairScores, SftScope, sigmoid_loss


class Form(Enum):
    """The loss as a function of z, written out under DPO."""

    sigmoid = "sigmoid"
    """DPO's own."""
    hinge = "hinge"
    """SLiC (arXiv 2305.10425): max(0, 1 - beta z)."""
    ipo = "ipo"
    """Identity preference optimisation (arXiv 2310.12036), on summed log-ratios."""
    robust = "robust"
    """Unbiased under label noise (arXiv 2403.00409)."""


class Normalise(Enum):
    """What becomes of a side's log-ratio before the sides are compared."""

    sum = "sum"
    """Summed over the scored tokens, as the papers have it."""
    mean = "mean"
    """Divided by their number: n tokens on either side and beta are then beta / n."""


@dataclass(frozen=True)
class DPO:
    """With z = chosen_logratio - rejected_logratio and e the probability that the label is wrong:

    sigmoid  -(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z)
    hinge    max(0, 1 - beta z)
    ipo      (z - 1 / (2 beta))^2
    robust   (-(1 - e) log sigmoid(beta z) + e log sigmoid(-beta z)) / (1 - 2 e)

    With `normalise: mean` either log-ratio, in z and in the rewards, is divided by its side's scored tokens.

    At policy = reference the sigmoid form is log 2 and every reward is 0. With `level=step` the sigmoid form is
    Step-DPO (arXiv 2406.18629, eq. 2). e is the larger of `label_smoothing` and 1 - the pair's own confidence.
    """

    beta: float = 0.4
    """Strength of the pull to the reference; DPO's paper uses 0.1 to 0.5, Step-DPO's scripts 0.4 and 0.5."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5]."""
    form: Form = Form.sigmoid
    normalise: Normalise = Normalise.sum
    sft_weight: float = 0.0
    """Weight of the chosen side's negative log-likelihood, a mean over its tokens (IRPO, arXiv 2404.19733: 1)."""
    sft_scope: SftScope = SftScope.scored

    def __post_init__(self) -> None:
        self.sft_scope.check(self.sft_weight)
        positive(beta=self.beta)
        within(0, 0.5 if self.form is not Form.robust else 0.499, label_smoothing=self.label_smoothing)
        if self.label_smoothing and self.form in (Form.hinge, Form.ipo):
            raise ValueError(f"label_smoothing has no meaning for form={self.form.value}")
        if self.normalise is Normalise.mean and self.form is Form.robust:
            raise ValueError("normalise=mean goes with form=sigmoid, hinge or ipo; robust is derived for sums")
        at_least(0, sft_weight=self.sft_weight)

    @property
    def needs(self) -> frozenset[str]:
        return self.sft_scope.needs(self.sft_weight, "rejected", "reference")

    @property
    def length_normalised(self) -> bool:
        return self.normalise is Normalise.mean or self.sft_weight > 0

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B, rejected_B = scores.chosen_logratios_B, scores.rejected_logratios_B
        if self.normalise is Normalise.mean:
            chosen_B = chosen_B / scores.chosen_tokens_B.clamp(min=1)
            rejected_B = rejected_B / scores.rejected_tokens_B.clamp(min=1)
        z_B = chosen_B - rejected_B
        if self.form is Form.sigmoid:
            losses_B = sigmoid_loss(self.beta, z_B, scores.confidence_B, self.label_smoothing)
        elif self.form is Form.hinge:
            losses_B = (1 - self.beta * z_B).clamp(min=0)
        elif self.form is Form.ipo:
            losses_B = (z_B - 1 / (2 * self.beta)) ** 2
        else:
            wrong_B = (1 - scores.confidence_B).clamp(min=self.label_smoothing, max=0.499)  # not 1/2: 1 - 2 e divides
            right_B, flipped_B = -F.logsigmoid(self.beta * z_B), -F.logsigmoid(-self.beta * z_B)
            losses_B = ((1 - wrong_B) * right_B - wrong_B * flipped_B) / (1 - 2 * wrong_B)
        out = LossOutput(losses_B, self.beta * chosen_B.detach(), self.beta * rejected_B.detach())
        return out.with_nll(scores, self.sft_weight)
