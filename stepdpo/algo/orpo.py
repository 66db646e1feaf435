"""ORPO (Hong et al. 2024, arXiv 2403.07691): supervised training with an odds ratio, without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.core.ranges import at_least
from stepdpo.tokens.pair_scores import LossOutput, PairScores

CERTAIN = -1e-4
"""Nats a token above which a side counts as certain: its odds are then 10,000 to 1, and pull at it no more."""


@dataclass(frozen=True)
class ORPO:
    """loss = -a_chosen - alpha log sigmoid(log_odds(a_chosen) - log_odds(a_rejected)),

    with a the mean log-probability of a side's scored tokens and log_odds(a) = a - log(1 - exp(a)). alpha = 0 is
    supervised training on the chosen side. Swapping the sides negates the difference of the log-odds, which are the
    rewards.
    """

    alpha: float = 0.1
    """Weight of the odds ratio (the paper's lambda, `alpha` in the authors' code, `beta` in TRL)."""

    needs: ClassVar[frozenset[str]] = frozenset({"rejected"})
    length_normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(0, alpha=self.alpha)

    def __call__(self, scores: PairScores) -> LossOutput:
        nll_B = -scores.chosen_logps_per_token_B
        chosen_B, rejected_B = log_odds(scores.chosen_logps_per_token_B), log_odds(scores.rejected_logps_per_token_B)
        ratio_B = F.logsigmoid(chosen_B - rejected_B)
        return LossOutput(
            losses_B=nll_B - self.alpha * ratio_B,
            chosen_rewards_B=chosen_B.detach(),
            rejected_rewards_B=rejected_B.detach(),
            metrics_B={"nll": nll_B.detach(), "log_sigmoid_odds": ratio_B.detach()},
        )


def log_odds(logps: Tensor) -> Tensor:
    """log(p / (1 - p)) of log-probabilities, in nats; finite for every p, also for 1."""
    # At p = 1 they are infinite: a step of one token that the model is sure of would be all of a batch's gradient.
    logps = logps.clamp(max=CERTAIN)
    # Either formula loses its digits where the other keeps them: 1 - exp(x) near 0, and exp(x) beside 1.
    small, large = torch.log1p(-logps.exp()), torch.log(-torch.expm1(logps))
    return logps - torch.where(logps < -log(2), small, large)
