"""The output head: hidden states -> log-probabilities over the vocabulary, and how far a logit follows its product.

In the model's own format up to the logits, in fp32 from there on. The passes over chunks, and what waits in memory for
the backward one, are `logprobs`'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """How logits are made: `cap * tanh(scale * (h W^T + low up^T) / cap)`, without tanh where there is no cap."""

    weight_VH: Tensor
    up_VR: Tensor | None = None
    """The second factor of a low-rank adapter on the head; the first is applied to the hidden states before."""
    scale: float = 1.0
    cap: float | None = None
    """Soft cap of the logits, as in Gemma 2."""


def log_softmax(
    hidden_CH: Tensor, low_CR: Tensor | None, head: Head, target_C: Tensor, out_CV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(log-probabilities over the vocabulary, what was subtracted from the logits), at least fp32; in `out_CV`."""
    kind = wide(hidden_CH)
    # The product in the model's own format, as the model itself would have it; fp32 begins at the logits.
    whole = kind == hidden_CH.dtype
    logits_CV = torch.mm(hidden_CH, head.weight_VH.T, out=out_CV if whole else None)
    if low_CR is not None and head.up_VR is not None:
        logits_CV.addmm_(low_CR, head.up_VR.T)
    if not whole:
        out_CV = torch.empty_like(logits_CV, dtype=kind) if out_CV is None else out_CV
        logits_CV = out_CV.copy_(logits_CV)
    if head.scale != 1:
        logits_CV.mul_(head.scale)
    if head.cap is not None:
        logits_CV.div_(head.cap).tanh_().mul_(head.cap)
    target_C1 = target_C[:, None]
    scored_C1 = logits_CV.gather(1, target_C1)
    # The overload with `out`: torch.log_softmax would make a second tensor of this size. What it subtracts, the
    # logsumexp, is had back from one column.
    torch.ops.aten._log_softmax.out(logits_CV, -1, False, out=logits_CV)
    return logits_CV, (scored_C1 - logits_CV.gather(1, target_C1)).squeeze(1)


def slope(policy_CV: Tensor, offset_C1: Tensor, form: tuple[float, float | None]) -> Tensor | None:
    """D logits / d (h W^T); None where it is 1."""
    scale, cap = form
    if cap is not None:
        return ((policy_CV + offset_C1) / cap).square_().neg_().add_(1).mul_(scale)
    return policy_CV.new_full((1, 1), scale) if scale != 1 else None


def wide(tensor: Tensor) -> torch.dtype:
    """fp32 for the half formats; a model in double precision stays exact."""
    return torch.promote_types(tensor.dtype, torch.float32)


def as_autocast(tensor: Tensor) -> Tensor:
    """In autocast's format where it is on: it casts the inputs of PyTorch's functions, and knows nothing of ours."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor
