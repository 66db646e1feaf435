"""Hidden states and a head -> log-probabilities of the scored tokens, and the KL to a reference.

Only scored positions reach the head. Logits exist for one chunk of positions at a time, in fp32, and are computed
again in the backward pass, so memory is chunk x V and never T x V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1024
"""Scored positions whose logits exist at the same time."""


class _TokenScores(torch.autograd.Function):
    """logps_T = log softmax(h W^T)[target]; kl_T = KL(reference, policy) at the same positions (0 without one)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        head_VH: Tensor,
        target_T: Tensor,
        reference_hidden_TH: Tensor | None,
        reference_head_VH: Tensor | None,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        total = len(target_T)
        logps_T = hidden_TH.new_zeros(total, dtype=_wide(hidden_TH))
        kl_T = torch.zeros_like(logps_T)
        normaliser_T = torch.zeros_like(logps_T)
        for at in range(0, total, chunk):
            part = slice(at, at + chunk)
            logits_CV = _logits(hidden_TH[part], head_VH)
            normaliser_C = logits_CV.logsumexp(-1)
            normaliser_T[part] = normaliser_C
            logps_T[part] = logits_CV.gather(1, target_T[part, None]).squeeze(1) - normaliser_C
            if reference_hidden_TH is not None and reference_head_VH is not None:
                reference_CV = _reference_logps(reference_hidden_TH[part], reference_head_VH)
                policy_CV = logits_CV.sub_(normaliser_C[:, None])
                kl_T[part] = (reference_CV.exp() * (reference_CV - policy_CV)).sum(-1)
        ctx.save_for_backward(hidden_TH, head_VH, target_T, normaliser_T, reference_hidden_TH, reference_head_VH)
        ctx.chunk = chunk
        return logps_T, kl_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """D logp / d logits = onehot - p and d KL / d logits = p - r, with p the policy and r the reference."""
        grad_logps_T, grad_kl_T = gradients
        hidden_TH, head_VH, target_T, normaliser_T, reference_hidden_TH, reference_head_VH = ctx.saved_tensors
        grad_hidden_TH = torch.zeros_like(hidden_TH)
        grad_head_VH = torch.zeros_like(head_VH, dtype=_wide(head_VH)) if ctx.needs_input_grad[1] else None
        for at in range(0, len(target_T), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            hidden_CH = hidden_TH[part]
            grad_CV = _logits(hidden_CH, head_VH).sub_(normaliser_T[part, None]).exp_()
            known = reference_hidden_TH is not None
            grad_CV.mul_((grad_kl_T[part] - grad_logps_T[part] if known else -grad_logps_T[part])[:, None])
            if known:
                reference_CV = _reference_logps(reference_hidden_TH[part], reference_head_VH).exp_()
                grad_CV.sub_(reference_CV.mul_(grad_kl_T[part, None]))
            grad_CV.scatter_add_(1, target_T[part, None], grad_logps_T[part, None])
            grad_CV = grad_CV.to(hidden_TH.dtype)
            grad_hidden_TH[part] = grad_CV @ head_VH
            if grad_head_VH is not None:
                grad_head_VH += grad_CV.T @ hidden_CH
        grad_head = grad_head_VH.to(head_VH.dtype) if grad_head_VH is not None else None
        return grad_hidden_TH, grad_head, None, None, None, None


def _reference_logps(hidden_CH: Tensor, head_VH: Tensor) -> Tensor:
    return torch.log_softmax(_logits(hidden_CH, head_VH), dim=-1)


def _logits(hidden_CH: Tensor, head_VH: Tensor) -> Tensor:
    return (hidden_CH @ head_VH.T).to(_wide(hidden_CH))


def _wide(tensor: Tensor) -> torch.dtype:
    """fp32 for the half formats; a model in double precision stays exact."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _autocast(tensor: Tensor) -> Tensor:
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def token_scores(
    hidden_TH: Tensor,
    head_VH: Tensor,
    target_T: Tensor,
    reference_hidden_TH: Tensor | None = None,
    reference_head_VH: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """(logps_T, kl_T) in nats, at least fp32, at T scored positions; kl_T is zero without a reference.

    `kl_T` is KL(reference, policy) over the whole vocabulary (arXiv 2404.11999, section 4: the reference comes
    first). Gradients flow to `hidden_TH` and `head_VH` alone. Under autocast all operands are cast here, so that
    the backward pass, which autocast does not reach, computes the same logits again.
    """
    hidden_TH, head_VH = _autocast(hidden_TH), _autocast(head_VH)
    if reference_hidden_TH is not None and reference_head_VH is not None:
        reference_hidden_TH, reference_head_VH = _autocast(reference_hidden_TH), _autocast(reference_head_VH)
    logps_T, kl_T = _TokenScores.apply(hidden_TH, head_VH, target_T, reference_hidden_TH, reference_head_VH, chunk)  # type: ignore[no-untyped-call]
    return logps_T, kl_T


def sum_by_owner(values_T: Tensor, term_E: Tensor, owner_E: Tensor, owners: int) -> Tensor:
    """Sum of each response's own terms, shape (owners,)."""
    return values_T.new_zeros(owners).index_add(0, owner_E, values_T[term_E])
