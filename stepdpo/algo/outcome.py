"""An implicit process reward model (Yuan et al. 2024, arXiv 2412.01981): right or wrong by a policy's log-ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from stepdpo.core.ranges import positive
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import StepScores


@dataclass(frozen=True)
class Outcome:
    """loss = -y log sigmoid(r) - (1 - y) log sigmoid(-r), r = beta log-ratio of a response, y in [0, 1] its label.

    What it learns is read step by step: the log-ratio up to the end of a step, times beta, is that step's value. At
    policy = reference the loss is log 2 whatever the labels.
    """

    beta: float = 0.05

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired", "reference", "steps", "labels"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)

    def __call__(self, scores: StepScores) -> LossOutput:
        rewards_R = self.beta * scores.by_response(scores.logratios_E)
        label_R = scores.label_R.double()
        losses_R = -label_R * F.logsigmoid(rewards_R) - (1 - label_R) * F.logsigmoid(-rewards_R)
        right_R = (rewards_R.detach() > 0) == (label_R >= 0.5)
        return LossOutput(
            losses_B=losses_R,
            chosen_rewards_B=rewards_R.detach(),
            rejected_rewards_B=torch.zeros_like(losses_R),
            metrics_B={"outcome/accuracy": right_R.double()},
        )
