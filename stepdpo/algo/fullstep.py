"""Full-Step-DPO (Xu et al. 2025, arXiv 2502.14356): whole solutions, every step weighed by its own reward."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.core.ranges import at_least, positive
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import StepScores


class Form(Enum):
    """Which of the two losses, written out under FullStep."""

    exact = "exact"
    """A weighted-sum DPO, whose value means something."""
    surrogate = "surrogate"
    """What the authors' code differentiates; of its value only the gradient means anything."""


class Over(Enum):
    """What the weights of a response are a softmax over."""

    steps = "steps"
    tokens = "tokens"
    """As in the authors' code, where a long step therefore weighs more than a short one of equal reward."""


@dataclass(frozen=True)
class FullStep:
    """Over all (i, j) among a problem's responses of which i is more right than j:

    exact      mean of -log sigmoid(beta (sum_t a_t d_t over i - sum_t b_t d_t over j))
    surrogate  -mean of G_ij (sum_t a_t u_t log p_t over i - sum_t b_t v_t log p_t over j)

    d is a token's log-ratio, r the reward of its step in [0, 1] (1/2 where nobody knows), a the softmax of kappa r and
    b that of -kappa r over the steps of a response, shared out among a step's tokens in the surrogate and, in the exact
    form, times the number of steps, so that kappa = 0 is DPO. Of no gradient: u = sigmoid(-tau d), v = sigmoid(tau d),
    G_ij = sigmoid(-beta (d_i - d_j)) with plain sums d_i, d_j.
    """

    beta: float = 0.05
    kappa: float = 0.5
    """The authors' reward_temp."""
    tau: float = 1.0
    """The authors' token_rate; in the surrogate alone."""
    form: Form = Form.exact
    over: Over = Over.steps

    needs: ClassVar[frozenset[str]] = frozenset({"group", "reference", "steps", "labels"})

    def __post_init__(self) -> None:
        positive(beta=self.beta)
        at_least(0, kappa=self.kappa, tau=self.tau)
        if self.form is Form.exact and self.over is Over.tokens:
            raise ValueError("over=tokens is a habit of the surrogate; form=exact weighs steps")

    def __call__(self, scores: StepScores) -> LossOutput:
        better_P, worse_P = scores.ranked_pairs()
        delta_R = scores.by_response(scores.logratios_E)
        up_E, down_E = (self._weights(scores, sign) for sign in (1.0, -1.0))
        if self.form is Form.exact:
            up_R, down_R = (scores.by_response(w_E * scores.logratios_E) for w_E in (up_E, down_E))
            losses_P = -F.logsigmoid(self.beta * (up_R[better_P] - down_R[worse_P]))
        else:
            ratios_E = scores.logratios_E.detach()
            up_R = scores.by_response(up_E * torch.sigmoid(-self.tau * ratios_E) * scores.logps_E)
            down_R = scores.by_response(down_E * torch.sigmoid(self.tau * ratios_E) * scores.logps_E)
            gate_P = torch.sigmoid(-self.beta * (delta_R[better_P] - delta_R[worse_P])).detach()
            losses_P = -gate_P * (up_R[better_P] - down_R[worse_P])
        rewards_R = self.beta * delta_R.detach()
        return LossOutput(
            losses_B=scores.mean_of_pairs(losses_P, better_P),
            chosen_rewards_B=rewards_R[scores.best_B],
            rejected_rewards_B=rewards_R[scores.worst_B],
        )

    def _weights(self, scores: StepScores, sign: float) -> Tensor:
        """(E,): of each term. They add up to 1 over a response, in the exact form to a step's tokens a step."""
        reward_S = sign * self.kappa * scores.label_S.nan_to_num(0.5).double()
        tokens_S = scores.by_step(torch.ones_like(scores.logps_E))
        exp_S = reward_S.exp()  # rewards lie in [0, 1]: nothing overflows
        if self.over is Over.tokens:
            total_R = scores.by_response_of_steps(exp_S * tokens_S)
            return (exp_S / total_R[scores.response_S])[scores.step_E]
        share_S = exp_S / scores.by_response_of_steps(exp_S)[scores.response_S]
        if self.form is Form.exact:
            count_R = scores.by_response_of_steps(torch.ones_like(exp_S))
            return (count_R[scores.response_S] * share_S)[scores.step_E]
        return (share_S / tokens_S.clamp(min=1))[scores.step_E]
