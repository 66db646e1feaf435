"""Tree attention of one packed row on the CPU: blocks of queries over just their keys, forward and backward.

PyTorch's CPU flash kernel takes keys 512 at a time and masks what a query must not see, so a causal segment of a
few hundred tokens costs twice what it should. Here each segment is cut into blocks of queries, and a block meets only
the keys up to its last query. Query heads that share a key head are laid one after another as queries, so that keys
are never repeated. The result is plain softmax attention, exact to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from stepdpo.tokens.trie import Segment

BLOCK = 64
"""Queries a block: 48 to 96 were fastest; fewer and the calls cost more, more and masked keys do."""
WIDTH = 4096
"""Keys the causal mask is first made for; it doubles when a sequence is longer."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def supports(query: Tensor, value: Tensor) -> bool:
    """Whether the kernel can be used."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


def attend(
    query_1ALD: Tensor, key_1GLD: Tensor, value_1GLD: Tensor, segments: Sequence[Segment], scale: float
) -> Tensor:
    """Attention of a whole row; A query heads, G key heads (A a multiple of G), L positions, D head size."""
    inputs = (_dense_last(x) for x in (query_1ALD, key_1GLD, value_1GLD))
    output: Tensor = _Row.apply(*inputs, tuple(segments), scale)  # type: ignore[no-untyped-call]
    return output


def _dense_last(x: Tensor) -> Tensor:
    """The kernel reads strides of all dimensions but the last."""
    return x if x.stride(-1) == 1 else x.contiguous()


@dataclass(frozen=True)
class _Heads:
    """How heads are laid out for the kernel: (key head, split, folded query heads x queries, head size)."""

    groups: int
    """Key heads."""
    splits: int
    """Parts of a group computed apart, so that every thread has work."""
    folded: int
    """Query heads laid one after another."""

    def apart(self, x_1ALD: Tensor) -> Tensor:
        _, _, length, size = x_1ALD.shape
        return x_1ALD.view(self.groups, self.splits, self.folded, length, size)

    def block(self, x_GSFLD: Tensor, start: int, stop: int) -> Tensor:
        return x_GSFLD[:, :, :, start:stop].flatten(2, 3)

    def unblock(self, x_GSQD: Tensor) -> Tensor:
        return x_GSQD.view(self.groups, self.splits, self.folded, -1, x_GSQD.shape[-1])

    def expand(self, x_GKD: Tensor) -> Tensor:
        return x_GKD[:, None].expand(-1, self.splits, -1, -1)


def _heads(query_heads: int, groups: int, threads: int) -> _Heads:
    """Fold as many query heads as leaves the kernel (which shares out heads) work for all threads."""
    size = query_heads // groups
    # A key head read once for all its query heads is the fastest layout (one long block of queries against the same
    # keys), but the kernel gives each (key head, split) to one thread: with fewer of them than threads, some idle.
    folded = max(f for f in range(1, size + 1) if size % f == 0 and (f == 1 or query_heads // f >= threads))
    return _Heads(groups, size // folded, folded)


def _keys(x_GLD: Tensor, segment: Segment) -> Tensor:
    """What a segment sees: its ancestors', then its own."""
    if not segment.ancestors:
        return x_GLD[:, segment.start : segment.stop]
    return torch.cat([x_GLD[:, a:b] for a, b in (*segment.ancestors, (segment.start, segment.stop))], dim=1)


def _blocks(segment: Segment) -> Iterator[tuple[int, int, int]]:
    """(first query, end of the queries, number of keys) of each block."""
    before = sum(b - a for a, b in segment.ancestors) - segment.start
    for start in range(segment.start, segment.stop, BLOCK):
        stop = min(start + BLOCK, segment.stop)
        yield start, stop, before + stop


@lru_cache(maxsize=8)
def _causal(width: int, folded: int, dtype: torch.dtype) -> Tensor:
    """(folded, BLOCK, width): query i of a block sees all but the last BLOCK - 1 - i keys."""
    # One mask serves every block: the last columns are the block's own triangle, and a block that sees fewer keys
    # takes fewer columns from the left.
    mask = torch.full((BLOCK, width), float("-inf"), dtype=dtype).triu(width - BLOCK + 1)
    return mask.expand(folded, -1, -1).contiguous()


def _mask(queries: int, keys: int, folded: int, dtype: torch.dtype) -> Tensor:
    """The last `queries` of `keys` positions attend causally."""
    width = WIDTH  # doubled and not fitted, so that lru_cache meets few widths
    while width < keys + BLOCK:
        width *= 2
    stop = width - BLOCK + queries
    return _causal(width, folded, dtype)[:, :queries, stop - keys : stop].flatten(0, 1)


class _Row(torch.autograd.Function):
    """The kernel's own forward and backward, block by block; gradients of keys are summed at least in fp32."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...], scale: float
    ) -> Any:
        ctx.heads = heads = _heads(query.shape[1], key.shape[1], torch.get_num_threads())
        ctx.segments, ctx.scale = segments, scale
        query_GSFLD = heads.apart(query)
        # Laid out (rows, positions, heads, size) in memory: what follows attention transposes to that, and then copies
        # nothing.
        output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        output_GSFLD = heads.apart(output)
        logsumexps = []
        for segment in segments:
            keys, values = heads.expand(_keys(key[0], segment)), heads.expand(_keys(value[0], segment))
            for start, stop, seen in _blocks(segment):
                block, logsumexp = _forward(
                    heads.block(query_GSFLD, start, stop),
                    keys[:, :, :seen],  # no key after the block's last query: half of a causal square is never computed
                    values[:, :, :seen],
                    attn_mask=_mask(stop - start, seen, heads.folded, query.dtype),
                    scale=scale,
                )
                output_GSFLD[:, :, :, start:stop] = heads.unblock(block)
                logsumexps.append(logsumexp)
        # With a query's logsumexp the backward kernel makes its weights again, block by block; no weights are kept.
        ctx.save_for_backward(query, key, value, output, *logsumexps)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        query, key, value, output, *logsumexps = ctx.saved_tensors
        heads: _Heads = ctx.heads
        query_GSFLD, output_GSFLD, grad_GSFLD = (heads.apart(x) for x in (query, output, _dense_last(grad_output)))
        grad_query = torch.empty_like(query)
        grad_query_GSFLD = heads.apart(grad_query)
        # A key of the trunk collects a term from every block of every branch: in bfloat16 the later ones would be lost.
        wide = torch.promote_types(key.dtype, torch.float32)
        grad_key, grad_value = (x.new_zeros(x.shape, dtype=wide) for x in (key, value))
        saved = iter(logsumexps)
        for segment in ctx.segments:
            keys, values = heads.expand(_keys(key[0], segment)), heads.expand(_keys(value[0], segment))
            own_key, own_value = (_key_gradient(x[0], segment) for x in (grad_key, grad_value))
            for start, stop, seen in _blocks(segment):
                of_query, of_key, of_value = _backward(
                    heads.block(grad_GSFLD, start, stop),
                    heads.block(query_GSFLD, start, stop),
                    keys[:, :, :seen],
                    values[:, :, :seen],
                    heads.block(output_GSFLD, start, stop),
                    next(saved),
                    0.0,  # dropout
                    False,  # causal: the mask says so
                    attn_mask=_mask(stop - start, seen, heads.folded, query.dtype),
                    scale=ctx.scale,
                )
                grad_query_GSFLD[:, :, :, start:stop] = heads.unblock(of_query)
                own_key[:, :seen] += _sum_over_splits(of_key)
                own_value[:, :seen] += _sum_over_splits(of_value)
            _scatter(grad_key[0], own_key, segment)
            _scatter(grad_value[0], own_value, segment)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _key_gradient(grad_GLD: Tensor, segment: Segment) -> Tensor:
    """Where the gradient of a segment's keys is summed: in place without ancestors."""
    if not segment.ancestors:
        return grad_GLD[:, segment.start : segment.stop]
    seen = sum(b - a for a, b in segment.ancestors) + segment.stop - segment.start
    return grad_GLD.new_zeros(grad_GLD.shape[0], seen, grad_GLD.shape[2])


def _scatter(grad_GLD: Tensor, own_GKD: Tensor, segment: Segment) -> None:
    """Add a segment's sums to the row, where they were not summed in place."""
    if not segment.ancestors:
        return
    at = 0
    for a, b in (*segment.ancestors, (segment.start, segment.stop)):
        grad_GLD[:, a:b] += own_GKD[:, at : at + b - a]
        at += b - a


def _sum_over_splits(x_GSKD: Tensor) -> Tensor:
    return x_GSKD[:, 0] if x_GSKD.shape[1] == 1 else x_GSKD.sum(1)
