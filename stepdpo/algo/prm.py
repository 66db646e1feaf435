"""A process reward model: how likely each step is right, by cross-entropy or by PQM's ranking (arXiv 2410.11287)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.core.ranges import at_least, below_one
from stepdpo.tokens.pair_scores import LossOutput
from stepdpo.tokens.step_scores import Squash, StepScores, Trunk, ValueHeadSpec


class Form(Enum):
    """Which loss, written out under PRM."""

    bce = "bce"
    pqm = "pqm"


class Average(Enum):
    """What counts as much as any other."""

    solution = "solution"
    """Every solution, however many steps it has."""
    step = "step"
    """Every labelled step: a solution's loss is the sum over its steps, so rates are to be smaller."""


@dataclass(frozen=True)
class PRM:
    """Of a single solution with raw scores v of its steps, in order, and labels y in [0, 1]:

    bce  mean over labelled steps of -y log sigmoid(v) - (1 - y) log sigmoid(-v)
    pqm  mean over c in {0} and right steps of log(sum of e^v over right steps up to c, with e^0, + sum over wrong steps
         of e^(v + zeta)) - v_c, with v_0 = 0; the term of 0 only where a step is wrong

    A step is right where its label is at least 1/2; unlabelled steps do not count. PQM asks scores to rise along right
    steps and every wrong one to lie zeta below them.
    """

    form: Form = Form.bce
    average: Average = Average.solution
    zeta: float = 4.0
    """PQM's margin; in pqm alone."""
    trunk: Trunk = Trunk.live
    dropout: float = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired", "steps", "values"})

    def __post_init__(self) -> None:
        at_least(0, zeta=self.zeta)
        below_one(dropout=self.dropout)
        if self.form is Form.pqm and self.average is Average.step:
            raise ValueError("average=step has no meaning for form=pqm, whose terms are of whole solutions")

    @property
    def value_head(self) -> ValueHeadSpec:
        return ValueHeadSpec(Squash.sigmoid, self.dropout, self.trunk)

    def __call__(self, scores: StepScores) -> LossOutput:
        assert scores.values_S is not None
        label_S = scores.label_S.double()
        known_S = ~label_S.isnan()
        count_R = scores.by_response_of_steps(known_S.double())
        if self.form is Form.pqm:
            losses_R = self._ranking(scores, scores.values_S)
        else:
            up_S, down_S = F.logsigmoid(scores.values_S), F.logsigmoid(-scores.values_S)
            y_S = label_S.nan_to_num()
            entropy_S = torch.where(known_S, -y_S * up_S - (1 - y_S) * down_S, 0.0)
            losses_R = scores.by_response_of_steps(entropy_S)
            if self.average is Average.solution:
                losses_R = losses_R / count_R.clamp(min=1)
        agree_S = known_S & ((scores.values_S > 0) == (label_S >= 0.5))
        return LossOutput(
            losses_B=losses_R,
            chosen_rewards_B=torch.zeros_like(losses_R.detach()),
            rejected_rewards_B=torch.zeros_like(losses_R.detach()),
            metrics_B={
                "steps/accuracy": scores.by_response_of_steps(agree_S.double()) / count_R.clamp(min=1),
                "steps/labelled": count_R,
            },
        )

    def _ranking(self, scores: StepScores, value_S: Tensor) -> Tensor:
        """(R,), by logsumexp over a table of all steps against all steps."""
        known_S = ~scores.label_S.isnan()
        right_S, wrong_S = known_S & (scores.label_S >= 0.5), known_S & (scores.label_S < 0.5)
        same_SS = scores.response_S[:, None] == scores.response_S[None]
        place_S = torch.arange(len(value_S), device=value_S.device)
        upto_SS = same_SS & right_S[None] & (place_S[None] <= place_S[:, None])
        against_SS = torch.where(upto_SS, value_S[None], value_S[None] + self.zeta)
        against_SS = against_SS.masked_fill(~(upto_SS | (same_SS & wrong_S[None])), -torch.inf)
        nothing_S1 = torch.zeros_like(value_S)[:, None]  # v_0, which comes before every step
        terms_S = torch.logsumexp(torch.cat([nothing_S1, against_SS], 1), 1) - value_S
        # The term of v_0: against the wrong steps alone.
        responses = torch.arange(len(scores.label_R), device=value_S.device)
        wrong_RS = (scores.response_S[None] == responses[:, None]) & wrong_S[None]
        below_RS = (value_S[None] + self.zeta).expand(len(responses), -1).masked_fill(~wrong_RS, -torch.inf)
        first_R = torch.logsumexp(torch.cat([torch.zeros_like(below_RS[:, :1]), below_RS], 1), 1)
        any_R = wrong_RS.any(1)
        total_R = scores.by_response_of_steps(torch.where(right_S, terms_S, 0.0)) + torch.where(any_R, first_R, 0.0)
        count_R = scores.by_response_of_steps(right_S.double()) + any_R
        return total_R / count_R.clamp(min=1)
