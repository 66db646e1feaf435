"""Plain softmax attention under a mask, and the backend that gives it a row's whole mask: the twin of all others."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.models.attention.metadata import TreeMask


def attend(query: Tensor, key: Tensor, value: Tensor, tree: TreeMask, scale: float, softcap: float | None) -> Tensor:
    """The backend: every query over the whole row, under one L x L mask."""
    return softmax_attention(query, key, value, tree.dense_R1LL, scale, softcap)


def softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """(rows, heads, positions, head size); `mask` is true where a query sees, None is causal.

    `softcap`: logits are `softcap * tanh(logits / softcap)` (Gemma 2, arXiv 2408.00118), which PyTorch's own
    attention cannot do; the scores are then written out.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)
    logits = softcap * torch.tanh((query @ key.transpose(-1, -2)) * (scale / softcap))
    if mask is None:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    # The mask comes after the cap: tanh would turn minus infinity into -softcap, which the softmax does not ignore.
    logits = logits.masked_fill(~mask, float("-inf"))
    # Half formats sum thousands of small weights badly; a model in double precision stays in double precision.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.softmax(logits, dim=-1, dtype=wide).to(value.dtype) @ value
