"""DPO-Positive (Pal et al. 2024, arXiv 2402.13228): a penalty where the chosen side grows less likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput, PairScores

FALLEN = -1e-6
"""Nats below which a chosen side counts as less likely than under the reference: nearer to 0 it may be rounding."""


@dataclass(frozen=True)
class DPOP:
    """loss = -log sigmoid(beta (z - penalty max(0, -d))), d = chosen_logratio, z = d - rejected_logratio.

    Where d >= 0, and everywhere with penalty 0, it is DPO. Where d < 0 the chosen side is pulled up 1 + penalty times
    as hard as the rejected one is pushed down. Rewards are DPO's; `logit` is the margin the loss really sees.
    """

    beta: float = 0.3
    """The paper's value."""
    penalty: float = 50.0
    """The paper's lambda. It multiplies summed nats, so on single steps 5 is enough to begin with."""

    needs: ClassVar[frozenset[str]] = frozenset({"rejected", "reference"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)
        at_least(0, penalty=self.penalty)

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B, rejected_B = scores.chosen_logratios_B, scores.rejected_logratios_B
        # Before the first update every log-ratio is 0 but for rounding, whose sign must not decide on a gradient.
        penalty_B = torch.where(chosen_B < FALLEN, -self.penalty * chosen_B, 0.0)
        logit_B = self.beta * (chosen_B - rejected_B - penalty_B)
        return LossOutput(
            losses_B=-F.logsigmoid(logit_B),
            chosen_rewards_B=self.beta * chosen_B.detach(),
            rejected_rewards_B=self.beta * rejected_B.detach(),
            metrics_B={"penalty": penalty_B.detach(), "logit": logit_B.detach()},
        )
