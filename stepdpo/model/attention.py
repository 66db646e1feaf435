"""Tree attention as a transformers attention backend: no mask, no patched model.

A packed row is cut into runs (trees.TokenRun). Each run attends causally to itself and fully to its ancestors, so
every call is a plain scaled-dot-product attention over just the keys that are visible.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AttentionInterface

from stepdpo.trees import TokenRun

NAME = "stepdpo_tree"


@lru_cache(maxsize=256)
def _bottom_right_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    runs: tuple[TokenRun, ...] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of packed trees; query, key and value are (rows, heads, positions, head size).

    Raises RuntimeError when the model is called without its tree, since plain causal attention would be wrong.
    """
    if runs is None:
        raise RuntimeError("a model built for training on token trees was called without its tree")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    rows: list[list[Tensor]] = [[] for _ in range(query.shape[0])]
    for run in runs:
        own = slice(run.start, run.stop)
        row = slice(run.row, run.row + 1)
        query_run, key_run, value_run = query[row, :, own], key[row, :, own], value[row, :, own]
        mask = None
        if run.ancestors:
            key_run = torch.cat([*(key[row, :, a:b] for a, b in run.ancestors), key_run], dim=2)
            value_run = torch.cat([*(value[row, :, a:b] for a, b in run.ancestors), value_run], dim=2)
            mask = _bottom_right_causal(query_run.shape[2], key_run.shape[2], query.device)
        rows[run.row].append(
            F.scaled_dot_product_attention(
                query_run, key_run, value_run, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
        )
    output = torch.cat([torch.cat(parts, dim=2) for parts in rows], dim=0)
    return output.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make the backend known to transformers (without a mask function, so no mask is built); returns its name."""
    AttentionInterface.register(NAME, tree_attention)
    return NAME
