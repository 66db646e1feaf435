"""What a loss may know of a pair, what it may ask for, and what it answers.

Shape letters: B examples, which mostly are pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, runtime_checkable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True)
class PairScores:
    """All that a loss may know: sums over the scored tokens of each side, one entry a pair.

    Sums are in fp64 (`sum_by_owner`); `confidence_B`, the probability that the label is right, and `reference_point`
    are in fp32.

    Log-probabilities are in nats and summed, never averaged. Reference values carry no gradient. `kl` is the
    sum over scored positions of KL(reference, policy) over the whole vocabulary (reference first); `collision` the sum
    of the policy's log collision probabilities there, log sum_v pi(v)^2: how likely two draws are the same token. It
    carries no gradient.
    """

    chosen_logps_B: Tensor
    rejected_logps_B: Tensor
    chosen_tokens_B: Tensor
    rejected_tokens_B: Tensor
    confidence_B: Tensor
    reference_chosen_logps_B: Tensor | None = None
    reference_rejected_logps_B: Tensor | None = None
    chosen_kl_B: Tensor | None = None
    rejected_kl_B: Tensor | None = None
    reference_point: Tensor | None = None
    """Scalar: mean log-ratio of mismatched (question, response) pairs over the global batch, not below 0 (KTO)."""
    chosen_collision_B: Tensor | None = None
    rejected_collision_B: Tensor | None = None
    rest_logps_B: Tensor | None = None
    """Log-probability of the chosen side together with the rest of its solution, as far as that is right."""
    rest_tokens_B: Tensor | None = None

    @property
    def chosen_logratios_B(self) -> Tensor:
        """Log-probability under the policy minus that under the reference, in nats, of the chosen side."""
        assert self.reference_chosen_logps_B is not None, "the loss does not declare that it needs the reference"
        return self.chosen_logps_B - self.reference_chosen_logps_B

    @property
    def rejected_logratios_B(self) -> Tensor:
        """The same of the rejected side."""
        assert self.reference_rejected_logps_B is not None, "the loss does not declare that it needs the reference"
        return self.rejected_logps_B - self.reference_rejected_logps_B

    @property
    def chosen_logps_per_token_B(self) -> Tensor:
        """Mean log-probability of the chosen side's scored tokens, in nats; 0 where none is scored."""
        return self.chosen_logps_B / self.chosen_tokens_B.clamp(min=1)

    @property
    def chosen_logratios_per_token_B(self) -> Tensor:
        """Mean log-ratio of the chosen side's scored tokens, in nats; 0 where none is scored."""
        return self.chosen_logratios_B / self.chosen_tokens_B.clamp(min=1)

    @property
    def rejected_logps_per_token_B(self) -> Tensor:
        """The same of the rejected side."""
        return self.rejected_logps_B / self.rejected_tokens_B.clamp(min=1)


@dataclass(frozen=True)
class LossOutput:
    """A loss for every pair, and what is worth plotting."""

    losses_B: Tensor
    chosen_rewards_B: Tensor
    """Detached implicit reward of the chosen side."""
    rejected_rewards_B: Tensor
    metrics_B: dict[str, Tensor] = field(default_factory=dict)
    """Further detached per-pair values, averaged over pairs by the training loop."""

    def with_nll(self, scores: PairScores, weight: float) -> LossOutput:
        """`weight` times -chosen_logp / tokens added, reported as `nll` (arXiv 2404.19733); with 0 it is as before.

        Of the chosen side with its rest, where the loss needs that.

        A mean over the pair's own tokens: it depends on no other pair, and a long side weighs as much as a short one.
        """
        if not weight:
            return self
        nll_B = -scores.chosen_logps_per_token_B
        if scores.rest_logps_B is not None and scores.rest_tokens_B is not None:
            nll_B = -scores.rest_logps_B / scores.rest_tokens_B.clamp(min=1)
        metrics_B = {**self.metrics_B, "nll": nll_B.detach()}
        return replace(self, losses_B=self.losses_B + weight * nll_B, metrics_B=metrics_B)


NEEDS = frozenset(
    {
        "rejected", "reference", "kl", "reference_point", "collision", "rest", "right",
        "steps", "unpaired", "group", "labels", "values",
    }
)  # fmt: skip
"""What can be computed for a loss besides the chosen side.

An example is a pair with `rejected`, any single response with `unpaired`, all responses to a problem with `group`. With
`labels` only responses are used of which the data say how right they are, with `right` none whose label is below 1/2.
A loss with `steps` is given StepScores; with `values` a value head is trained, which its `value_head` describes.
"""
RESTS_ON = {"kl": "reference", "reference_point": "reference", "rest": "rejected"}
RESTS_ON |= dict.fromkeys(("labels", "group", "values"), "steps")
APART = [("group", "rejected"), ("unpaired", "rejected"), ("group", "unpaired")]
APART += [(word, "steps") for word in ("kl", "collision", "rest")]
"""An example is one thing, and StepScores hold no such sums."""


class SftScope(Enum):
    """What a supervised term beside a preference loss is about."""

    scored = "scored"
    """The chosen side as the preference loss scores it."""
    rest = "rest"
    """The chosen step and the rest of its solution, up to the first step of the rest that is known to be wrong."""

    def check(self, weight: float) -> None:
        """ValueError where the scope is set and the term has no weight."""
        if self is SftScope.rest and not weight:
            raise ValueError("sft_scope=rest is about a term that sft_weight=0 leaves out: set sft_weight, 1 say")

    def needs(self, weight: float, *words: str) -> frozenset[str]:
        """The needs of a loss, with what its supervised term wants besides."""
        return frozenset(words) | ({"rest"} if weight and self is SftScope.rest else set())


class Loss(Protocol):
    """PairScores -> LossOutput."""

    @property
    def needs(self) -> frozenset[str]:
        """What must be computed for it, of `NEEDS`; a class variable does."""
        ...

    def __call__(self, scores: PairScores) -> LossOutput: ...


@runtime_checkable
class LengthNormalised(Protocol):
    """A loss that says whether a mean over scored tokens enters it, so that scoring a shared prefix changes it."""

    @property
    def length_normalised(self) -> bool: ...


def sigmoid_loss(beta: float, z_B: Tensor, confidence_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z): e, the larger of `label_smoothing` and 1 - confidence."""
    # At e = 1/2 a pair teaches nothing; beyond, its sides would change places, and that is the data's business.
    wrong_B = (1 - confidence_B).clamp(min=label_smoothing, max=0.5)
    # logsigmoid and not log(sigmoid): where beta z is far below zero, sigmoid is 0 and its log minus infinity.
    return -(1 - wrong_B) * F.logsigmoid(beta * z_B) - wrong_B * F.logsigmoid(-beta * z_B)
