"""Step-KTO (Lin et al. 2025, arXiv 2501.10799): single solutions, judged as a whole and step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import StepScores


@dataclass(frozen=True)
class StepKTO:
    """loss = l(d, c; z0) + steps * mean over judged steps of l(d_s, c_s; z0 / S)

    l(d, right; z) = desirable (1 - sigmoid(beta (d - z))) and l(d, wrong; z) = undesirable (1 - sigmoid(beta (z - d))),
    with d the log-ratio of the response, d_s that of one of its S steps, and z0 KTO's point of reference: never below
    0, of no gradient. A step is right where its label is at least 1/2. Those after the first wrong one are not judged,
    as they go on from a mistake. No formula of the authors could be read: this is our definition. At policy =
    reference every l is half its weight; steps = 0 is KTO on unpaired data.
    """

    beta: float = 0.1
    steps: float = 1.0
    """Weight of the steps beside the response."""
    desirable: float = 1.0
    undesirable: float = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired", "reference", "steps", "labels", "reference_point"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)
        at_least(0, steps=self.steps, desirable=self.desirable, undesirable=self.undesirable)

    def __call__(self, scores: StepScores) -> LossOutput:
        assert scores.reference_point is not None
        z0 = scores.reference_point.detach().double()
        delta_R = scores.by_response(scores.logratios_E)
        delta_S = scores.by_step(scores.logratios_E)
        count_R = scores.by_response_of_steps(torch.ones_like(delta_S))
        judged_S = scores.judged_S.double()
        step_S = judged_S * self._value(delta_S, scores.label_S, z0 / count_R[scores.response_S])
        judged_R = scores.by_response_of_steps(judged_S)
        whole_R = self._value(delta_R, scores.label_R, z0)
        losses_R = whole_R + self.steps * scores.by_response_of_steps(step_S) / judged_R.clamp(min=1)
        rewards_R = self.beta * delta_R.detach()
        return LossOutput(
            losses_B=losses_R,
            chosen_rewards_B=rewards_R,
            rejected_rewards_B=torch.zeros_like(rewards_R),
            metrics_B={
                "reference_point": z0.expand_as(rewards_R),
                "outcome/accuracy": ((rewards_R > self.beta * z0) == (scores.label_R >= 0.5)).double(),
                "steps/judged": judged_R,
            },
        )

    def _value(self, delta: Tensor, label: Tensor, z: Tensor) -> Tensor:
        right = self.desirable * (1 - torch.sigmoid(self.beta * (delta - z)))
        wrong = self.undesirable * (1 - torch.sigmoid(self.beta * (z - delta)))
        return torch.where(label >= 0.5, right, wrong)
