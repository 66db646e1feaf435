"""Tree attention by runs: a row is cut into stretches, and each attends to its ancestors and, causally, to itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from stepdpo.models.attention import cpu_block as flash
from stepdpo.models.attention import softmax
from stepdpo.models.attention.metadata import TreeMask
from stepdpo.tokens.token_tree import Segment


def attend(query: Tensor, key: Tensor, value: Tensor, tree: TreeMask, scale: float, softcap: float | None) -> Tensor:
    """The CPU's kernel in blocks where it can be used; else one plain attention a run."""
    fast = softcap is None and flash.suits(query, value)
    outputs = []
    for number, segments in enumerate(tree.rows):
        q, k, v = (x[number : number + 1] for x in (query, key, value))
        outputs.append(flash.attend(q, k, v, segments, scale) if fast else _row(q, k, v, segments, scale, softcap))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _row(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], scale: float, softcap: float | None
) -> Tensor:
    """One row. Split, not sliced: the backward pass of a slice would fill a whole row with zeros each time."""
    sizes = [segment.stop - segment.start for segment in segments]
    keys, values = torch.split(key, sizes, dim=2), torch.split(value, sizes, dim=2)
    number = {segment.start: i for i, segment in enumerate(segments)}
    outputs = []
    for i, (segment, own) in enumerate(zip(segments, torch.split(query, sizes, dim=2), strict=True)):
        seen = [(number[start], stop - start) for start, stop in segment.ancestors]
        key_segment = torch.cat([*(keys[n][:, :, :size] for n, size in seen), keys[i]], dim=2) if seen else keys[i]
        value_segment = (
            torch.cat([*(values[n][:, :, :size] for n, size in seen), values[i]], dim=2) if seen else values[i]
        )
        mask = _bottom_right_causal(own.shape[2], key_segment.shape[2], query.device) if seen else None
        outputs.append(softmax.attend(own, key_segment, value_segment, mask, scale, softcap))
    return torch.cat(outputs, dim=2)


@lru_cache(maxsize=256)
def _bottom_right_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
