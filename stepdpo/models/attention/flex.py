"""Tree attention by FlexAttention (arXiv 2412.05496), for GPUs: one fused kernel that skips what nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from stepdpo.models.attention.metadata import TreeMask


def attend(query: Tensor, key: Tensor, value: Tensor, tree: TreeMask, scale: float, softcap: float | None) -> Tensor:
    """Compiled on a GPU; on a CPU the plain form, which has no backward pass."""
    flex = _compiled() if query.device.type == "cuda" else _plain()
    output: Tensor = flex(
        query,
        key,
        value,
        score_mod=_capped(softcap) if softcap is not None else None,
        block_mask=tree.blocks,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output


def _plain() -> Callable[..., Any]:
    return flex_attention


@cache
def _compiled() -> Callable[..., Any]:
    """Compiled once a process."""
    # The first length of rows is compiled as a constant, the second makes lengths a variable: two compilations.
    return torch.compile(flex_attention)


@cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    """Gemma 2's cap on attention logits."""
    # Cached by its cap, since a new function object would be compiled anew.

    def score(logit: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(logit / softcap)

    return score
