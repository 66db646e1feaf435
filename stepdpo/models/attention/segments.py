"""Tree attention by segments: each segment of a row attends to its ancestors and, causally, to itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from stepdpo.models.attention import cpu_block
from stepdpo.models.attention.dense import softmax_attention
from stepdpo.models.attention.metadata import TreeMask
from stepdpo.tokens.trie import Segment


def attend(query: Tensor, key: Tensor, value: Tensor, tree: TreeMask, scale: float, softcap: float | None) -> Tensor:
    """The CPU's kernel in blocks where it can be used; else one plain attention a segment."""
    fast = softcap is None and cpu_block.supports(query, value)
    outputs = []
    for number, segments in enumerate(tree.rows):
        q, k, v = (x[number : number + 1] for x in (query, key, value))
        outputs.append(cpu_block.attend(q, k, v, segments, scale) if fast else _row(q, k, v, segments, scale, softcap))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _row(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], scale: float, softcap: float | None
) -> Tensor:
    """One row, one plain attention a segment."""
    # Split, not sliced: the backward pass of a slice fills a tensor of the whole row with zeros, once a segment, so
    # that many short branches would cost the square of the row's length. `split` has one backward for all parts.
    sizes = [segment.stop - segment.start for segment in segments]
    keys, values = torch.split(key, sizes, dim=2), torch.split(value, sizes, dim=2)
    number = {segment.start: i for i, segment in enumerate(segments)}
    outputs = []
    for i, (segment, own) in enumerate(zip(segments, torch.split(query, sizes, dim=2), strict=True)):
        # An ancestor's span starts where a segment starts, and may end before that segment does.
        ancestors = [(number[start], stop - start) for start, stop in segment.ancestors]
        seen_keys, seen_values = (
            torch.cat([*(parts[n][:, :, :size] for n, size in ancestors), parts[i]], dim=2) if ancestors else parts[i]
            for parts in (keys, values)
        )
        mask = _bottom_right_causal(own.shape[2], seen_keys.shape[2], query.device) if ancestors else None
        outputs.append(softmax_attention(own, seen_keys, seen_values, mask, scale, softcap))
    return torch.cat(outputs, dim=2)


@lru_cache(maxsize=256)
def _bottom_right_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """The last `queries` of `keys` positions, causally; PyTorch's `is_causal` would take the first ones."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
