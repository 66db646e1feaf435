"""PairScores from plain lists, with gradients on everything a policy gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepdpo.tokens.batch import PairScores


def pair_scores(
    chosen: Sequence[float],
    rejected: Sequence[float],
    reference_chosen: Sequence[float] | None = None,
    reference_rejected: Sequence[float] | None = None,
    *,
    chosen_kl: Sequence[float] | None = None,
    rejected_kl: Sequence[float] | None = None,
    confidence: Sequence[float] | None = None,
    tokens: Sequence[int] | None = None,
    reference_point: float | None = None,
) -> PairScores:
    def policy(values: Sequence[float] | None) -> torch.Tensor | None:
        return torch.tensor(values, requires_grad=True) if values is not None else None

    def known(values: Sequence[float] | None) -> torch.Tensor | None:
        return torch.tensor(values) if values is not None else None

    count = torch.tensor(tokens, dtype=torch.float32) if tokens is not None else torch.full((len(chosen),), 4.0)
    return PairScores(
        chosen_logps_B=torch.tensor(chosen, requires_grad=True),
        rejected_logps_B=torch.tensor(rejected, requires_grad=True),
        chosen_tokens_B=count,
        rejected_tokens_B=count,
        confidence_B=torch.tensor(confidence) if confidence is not None else torch.ones(len(chosen)),
        reference_chosen_logps_B=known(reference_chosen),
        reference_rejected_logps_B=known(reference_rejected),
        chosen_kl_B=policy(chosen_kl),
        rejected_kl_B=policy(rejected_kl),
        reference_point=torch.tensor(reference_point) if reference_point is not None else None,
    )
