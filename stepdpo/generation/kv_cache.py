"""A key-value cache that grows in place: no copy of the whole cache at every token, as `torch.cat` makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

CHUNK = 64
"""Tokens of spare room taken at a time: the cache is copied once in so many tokens, at the cost of this much memory."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A full-attention layer whose keys and values are views of a roomier buffer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.buffers: list[Tensor] = []
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        if not self.buffers:
            self.buffers = [_empty(new, self.length) for new in (key_states, value_states)]
        elif self.length > self.buffers[0].shape[2]:
            self.buffers = [_grown(old, start, self.length) for old in self.buffers]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.length] = new
        return self._show()

    def release(self) -> tuple[Tensor, Tensor]:
        """Hand over everything that is cached, and begin anew."""
        # Without the spare room, which a prompt that grows no more would hold for nothing.
        keys, values = (part.contiguous() for part in self._show())
        self.buffers, self.length = [], 0
        self.keys, self.values = keys[:, :, :0], values[:, :, :0]
        return keys, values

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.buffers = [buffer.repeat_interleave(repeats, dim=0) for buffer in self.buffers]
        self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        # Released, and nothing written since: rows that end at their first token leave before that.
        if not self.buffers:
            return
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        # Views, which the attention reads as they are; `keys` and `values` are what the rest of transformers looks at.
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values


def growing_cache(config: Any) -> Any:
    """A DynamicCache for this architecture whose full-attention layers grow in place."""
    cache = DynamicCache(config=config)
    # By exact type: subclasses (sliding windows, linear attention) keep another part of the past, and stay as they are.
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _empty(like: Tensor, length: int) -> Tensor:
    return like.new_empty(like.shape[0], like.shape[1], length + CHUNK, like.shape[3])


def _grown(old: Tensor, kept: int, length: int) -> Tensor:
    buffer = _empty(old, length)
    buffer[:, :, :kept] = old[:, :, :kept]
    return buffer
