"""A batch and its scores -> the record that a loss is given."""

from __future__ import annotations

import torch
from torch import Tensor

from stepdpo.models.scorer import Scores
from stepdpo.tokens.batch import CHOSEN, REJECTED, SIDES, TreeBatch
from stepdpo.tokens.pair_scores import PairScores
from stepdpo.tokens.step_scores import StepScores


def pair_scores(batch: TreeBatch, scores: Scores, point: Tensor | None = None) -> PairScores:
    """Sums a pair; `point` is KTO's reference point. Where there is no rejected side, its numbers are 0."""
    device = scores.logps_R.device
    known_R, has_kl = batch.reference_logps_R, batch.reference_hidden_TH is not None
    logps_B2, kl_B2, tokens_B2 = (_by_side(values, batch) for values in (scores.logps_R, scores.kl_R, scores.tokens_R))
    rest = len(scores.logps_R) == (SIDES + 1) * batch.pairs
    known_B2 = _by_side(known_R.to(device), batch) if known_R is not None else None
    collision_B2 = _by_side(scores.collision_R, batch) if scores.collision_R is not None else None
    return PairScores(
        chosen_logps_B=logps_B2[:, CHOSEN],
        rejected_logps_B=logps_B2[:, REJECTED],
        chosen_tokens_B=tokens_B2[:, CHOSEN],
        rejected_tokens_B=tokens_B2[:, REJECTED],
        confidence_B=batch.confidence_B.to(device),
        reference_chosen_logps_B=known_B2[:, CHOSEN] if known_B2 is not None else None,
        reference_rejected_logps_B=known_B2[:, REJECTED] if known_B2 is not None else None,
        chosen_kl_B=kl_B2[:, CHOSEN] if has_kl else None,
        rejected_kl_B=kl_B2[:, REJECTED] if has_kl else None,
        reference_point=point.to(device) if point is not None else None,
        chosen_collision_B=collision_B2[:, CHOSEN] if collision_B2 is not None else None,
        rejected_collision_B=collision_B2[:, REJECTED] if collision_B2 is not None else None,
        rest_logps_B=scores.logps_R.view(batch.pairs, -1)[:, 0] if rest else None,
        rest_tokens_B=scores.tokens_R.view(batch.pairs, -1)[:, 0] if rest else None,
    )


def _by_side(values_R: Tensor, batch: TreeBatch) -> Tensor:
    """(B, 2): chosen and rejected of each pair, which the chosen side with its rest may precede."""
    if len(values_R) > batch.pairs:
        return values_R.view(batch.pairs, -1)[:, -SIDES:]
    return torch.stack([values_R, torch.zeros_like(values_R)], dim=1)


def step_scores(batch: TreeBatch, scores: Scores, point: Tensor | None = None) -> StepScores:
    """Term by term, for a batch that has steps."""
    assert batch.steps is not None
    assert scores.logps_T is not None
    device = scores.logps_T.device
    steps, term_E = batch.steps.to(device), batch.term_E.to(device)
    known_T = batch.reference_logps_T
    counts_B = torch.tensor(batch.responses, device=device)
    return StepScores(
        logps_E=scores.logps_T[term_E].double(),
        step_E=steps.step_E,
        weight_E=steps.weight_E,
        response_S=steps.response_S,
        label_S=steps.label_S,
        label_R=steps.label_R,
        example_R=torch.repeat_interleave(torch.arange(batch.pairs, device=device), counts_B),
        confidence_B=batch.confidence_B.to(device),
        reference_point=point.to(device) if point is not None else None,
        values_S=scores.values_S.double() if scores.values_S is not None else None,
        reference_logps_E=known_T.to(device)[term_E].double() if known_T is not None else None,
    )
