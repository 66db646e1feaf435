"""What a loss that looks at steps may know: every scored token of every response, and the step it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from stepdpo.tokens.pair_scores import LossOutput


@dataclass(frozen=True)
class StepScores:
    """Terms of responses, with their steps; the responses of an example follow one another.

    An example is a pair (the chosen response first), a single response, or all responses to one problem. Every term
    belongs to just one step of its response, and a response's terms add up to its log-probability. Log-probabilities
    are in nats and fp64, labels in [0, 1] and fp32. The reference's values carry no gradient.
    """

    logps_E: Tensor
    step_E: Tensor
    """Index into S."""
    weight_E: Tensor
    """What the data say a term counts; 1 where they say nothing."""
    response_S: Tensor
    """Index into R: the response that a step is a part of. Steps are in the order of their responses."""
    label_S: Tensor
    """How right a step is: 1 right, 0 wrong, or the share of roll-outs after it that came right; NaN: nobody knows."""
    label_R: Tensor
    """How right a response is as a whole; of a pair's sides 1 and 0, where the data say nothing else."""
    example_R: Tensor
    """Index into B."""
    confidence_B: Tensor
    """Probability that the label of a pair is right."""
    reference_logps_E: Tensor | None = None
    reference_point: Tensor | None = None
    """Scalar, as in PairScores."""
    values_S: Tensor | None = None
    """What the value head says at the last token of each step, before any squashing; with gradient."""

    @property
    def response_E(self) -> Tensor:
        """The response that a term counts for."""
        return self.response_S[self.step_E]

    @property
    def logratios_E(self) -> Tensor:
        """Log-probability under the policy minus that under the reference, term by term."""
        assert self.reference_logps_E is not None, "the loss does not declare that it needs the reference"
        return self.logps_E - self.reference_logps_E

    def by_step(self, values_E: Tensor) -> Tensor:
        """Sum over the terms of each step: (S,)."""
        return _sums(values_E, self.step_E, len(self.label_S))

    def by_response(self, values_E: Tensor) -> Tensor:
        """Sum over the terms of each response: (R,)."""
        return _sums(values_E, self.response_E, len(self.label_R))

    def by_example(self, values_R: Tensor) -> Tensor:
        """Sum over the responses of each example: (B,)."""
        return _sums(values_R, self.example_R, len(self.confidence_B))

    @property
    def place_S(self) -> Tensor:
        """Which step of its response a step is, from 0."""
        counts = torch.bincount(self.response_S, minlength=len(self.label_R))
        number_S = torch.arange(len(self.response_S), device=self.response_S.device)
        return number_S - (counts.cumsum(0) - counts)[self.response_S]

    @property
    def last_S(self) -> Tensor:
        """The last step of each response: (R,), indices into S."""
        counts = torch.bincount(self.response_S, minlength=len(self.label_R))
        return counts.cumsum(0) - 1

    @property
    def logps_R(self) -> Tensor:
        """Log-probability of each response."""
        return self.by_response(self.logps_E)

    @property
    def chosen_logps_B(self) -> Tensor:
        """That of the best response of each example."""
        return self.logps_R[self.best_B]

    @property
    def rejected_logps_B(self) -> Tensor:
        """That of the worst response of each example."""
        return self.logps_R[self.worst_B]

    @property
    def chosen_logps_per_token_B(self) -> Tensor:
        """The best response's mean log-probability over its terms."""
        return (self.logps_R / self.tokens_R.clamp(min=1))[self.best_B]

    @property
    def rejected_logps_per_token_B(self) -> Tensor:
        """The same of the worst response."""
        return (self.logps_R / self.tokens_R.clamp(min=1))[self.worst_B]

    @property
    def chosen_logratios_B(self) -> Tensor:
        """Log-probability of the best response under the policy minus that under the reference."""
        return self.by_response(self.logratios_E)[self.best_B]

    @property
    def chosen_logratios_per_token_B(self) -> Tensor:
        """The best response's mean log-ratio over its terms."""
        return self.chosen_logratios_B / self.tokens_R.clamp(min=1)[self.best_B]

    @property
    def tokens_R(self) -> Tensor:
        """How many terms a response has."""
        return self.by_response(torch.ones_like(self.logps_E))

    def by_response_of_steps(self, values_S: Tensor) -> Tensor:
        """Sum over the steps of each response: (R,)."""
        return _sums(values_S, self.response_S, len(self.label_R))

    @property
    def label_or_outcome_S(self) -> Tensor:
        """The labels of the steps; the last step of a response has the response's where it has none."""
        label_S = self.label_S.clone()
        last_R = self.last_S
        label_S[last_R] = torch.where(label_S[last_R].isnan(), self.label_R.to(label_S), label_S[last_R])
        return label_S

    @property
    def first_error_S(self) -> Tensor:
        """Whether a step is the first of its response whose label is below 1/2."""
        wrong_S = self.label_S < 0.5  # an unknown label, NaN, is not
        return wrong_S & (self._wrong_before(wrong_S) == 0)

    @property
    def judged_S(self) -> Tensor:
        """Whether a step has a label and no wrong step of its response lies before it."""
        return ~self.label_S.isnan() & (self._wrong_before(self.label_S < 0.5) == 0)

    def _wrong_before(self, wrong_S: Tensor) -> Tensor:
        """How many steps of a step's response before it are wrong."""
        count_S = wrong_S.long()
        before_S = count_S.cumsum(0) - count_S
        own_R = self.by_response_of_steps(count_S).long()
        return before_S - (own_R.cumsum(0) - own_R)[self.response_S]

    def ranked_pairs(self) -> tuple[Tensor, Tensor]:
        """(P,), (P,): every two responses of an example of which the first is the more right one."""
        same_RR = self.example_R[:, None] == self.example_R[None]
        better_P, worse_P = torch.nonzero(same_RR & (self.label_R[:, None] > self.label_R[None]), as_tuple=True)
        return better_P, worse_P

    def sum_of_pairs(self, values_P: Tensor, better_P: Tensor) -> Tensor:
        """Sum over the ranked pairs of each example: (B,)."""
        return _sums(values_P, self.example_R[better_P], len(self.confidence_B))

    def mean_of_pairs(self, values_P: Tensor, better_P: Tensor, weight_P: Tensor | None = None) -> Tensor:
        """Weighted mean over the ranked pairs of each example: (B,); 0 where there is none."""
        weight_P = torch.ones_like(values_P) if weight_P is None else weight_P
        total_B = self.sum_of_pairs(weight_P, better_P)
        return self.sum_of_pairs(weight_P * values_P, better_P) / total_B.masked_fill(total_B == 0, 1)

    @property
    def best_B(self) -> Tensor:
        """The response of each example with the largest label, the first of equal ones."""
        return self._extreme(1)

    @property
    def worst_B(self) -> Tensor:
        """The response of each example with the smallest label, the first of equal ones."""
        return self._extreme(-1)

    def _extreme(self, sign: int) -> Tensor:
        # By examples, then by labels: a stable sort leaves equal ones in their order.
        wanted_R = (sign * self.label_R).nan_to_num(nan=-torch.inf)
        by_label = torch.argsort(wanted_R, descending=True, stable=True)
        order = by_label[torch.argsort(self.example_R[by_label], stable=True)]
        counts = torch.bincount(self.example_R, minlength=len(self.confidence_B))
        return order[counts.cumsum(0) - counts]


class StepLoss(Protocol):
    """StepScores -> LossOutput, a number an example: a loss whose `needs` has `steps`."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, scores: StepScores) -> LossOutput: ...


class Squash(Enum):
    """What a value head's number becomes."""

    tanh = "tanh"
    """A value in [-1, 1], the expected outcome."""
    sigmoid = "sigmoid"
    """A probability."""

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.tanh() if self is Squash.tanh else raw.sigmoid()


class Trunk(Enum):
    """What a value head teaches the model below it."""

    live = "live"
    """Its gradient goes on into the model."""
    detached = "detached"
    """It does not; other terms of the loss may train the model."""
    frozen = "frozen"
    """The model is not trained at all."""


@dataclass(frozen=True)
class ValueHeadSpec:
    """The value head that a loss trains."""

    squash: Squash
    dropout: float = 0.0
    """Share of hidden numbers that are dropped in training, in [0, 1)."""
    trunk: Trunk = Trunk.live
    seed: int = 0
    """Of its first weights and of the dropout."""


@runtime_checkable
class HasValueHead(Protocol):
    """A loss whose `needs` has `values`."""

    @property
    def value_head(self) -> ValueHeadSpec: ...


def _sums(values: Tensor, into: Tensor, count: int) -> Tensor:
    return values.new_zeros(count, dtype=torch.float64).index_add(0, into, values.double())
