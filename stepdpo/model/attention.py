"""Tree attention as a transformers attention backend: no mask, no patched model.

A packed row is cut into runs (trees.TokenRun). Each run attends causally to itself and fully to its ancestors, so
every call is a plain scaled-dot-product attention over just the keys that are visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AttentionInterface

from stepdpo.trees import TokenRun

NAME = "stepdpo_tree"


def _row(query: Tensor, key: Tensor, value: Tensor, runs: Sequence[TokenRun], scaling: float | None) -> Tensor:
    """One packed row. Split, not sliced: the backward pass of a slice would fill a whole row with zeros each time."""
    sizes = [run.stop - run.start for run in runs]
    keys, values = torch.split(key, sizes, dim=2), torch.split(value, sizes, dim=2)
    number = {run.start: i for i, run in enumerate(runs)}
    outputs = []
    for i, (run, own) in enumerate(zip(runs, torch.split(query, sizes, dim=2), strict=True)):
        seen = [(number[start], stop - start) for start, stop in run.ancestors]
        key_run = torch.cat([*(keys[n][:, :, :size] for n, size in seen), keys[i]], dim=2) if seen else keys[i]
        value_run = torch.cat([*(values[n][:, :, :size] for n, size in seen), values[i]], dim=2) if seen else values[i]
        mask = _bottom_right_causal(own.shape[2], key_run.shape[2], query.device) if seen else None
        outputs.append(
            F.scaled_dot_product_attention(
                own, key_run, value_run, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
        )
    return torch.cat(outputs, dim=2)


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
    output = torch.cat(
        [
            _row(query[i : i + 1], key[i : i + 1], value[i : i + 1], [r for r in runs if r.row == i], scaling)
            for i in range(query.shape[0])
        ]
    )
    return output.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make the backend known to transformers (without a mask function, so no mask is built); returns its name."""
    AttentionInterface.register(NAME, tree_attention)
    return NAME
