"""PairScores from plain lists, with gradients on everything a policy gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepdpo.tokens.pair_scores import PairScores


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
    rejected_tokens: Sequence[int] | None = None,
    reference_point: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> PairScores:
    """`rejected_tokens` are as many as `tokens` unless they are given; without either each side has 4."""

    def policy(values: Sequence[float] | None) -> torch.Tensor | None:
        return torch.tensor(values, dtype=dtype, requires_grad=True) if values is not None else None

    def known(values: Sequence[float] | None) -> torch.Tensor | None:
        return torch.tensor(values, dtype=dtype) if values is not None else None

    count = tokens if tokens is not None else [4] * len(chosen)
    return PairScores(
        chosen_logps_B=torch.tensor(chosen, dtype=dtype, requires_grad=True),
        rejected_logps_B=torch.tensor(rejected, dtype=dtype, requires_grad=True),
        chosen_tokens_B=torch.tensor(count, dtype=dtype),
        rejected_tokens_B=torch.tensor(rejected_tokens if rejected_tokens is not None else count, dtype=dtype),
        confidence_B=torch.tensor(confidence) if confidence is not None else torch.ones(len(chosen)),
        reference_chosen_logps_B=known(reference_chosen),
        reference_rejected_logps_B=known(reference_rejected),
        chosen_kl_B=policy(chosen_kl),
        rejected_kl_B=policy(rejected_kl),
        reference_point=torch.tensor(reference_point) if reference_point is not None else None,
    )
