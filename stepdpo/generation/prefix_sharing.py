"""Attention of many responses to one prompt: the prompt's keys and values lie in memory once, and are read once.

While a response grows by a token at a time, reading the cache is most of the work. Here the queries of
the `n` responses to a prompt meet the prompt's keys together, in one product of matrices, and each its own keys alone;
one softmax goes over both.
Models are not patched: transformers knows this attention by a name, which is given when the model is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stepdpo.generation.kv_cache import GrowingLayer

NAME = "stepdpo_shared"


def register() -> str:
    """Make it known to transformers; returns its name. Without `shared=` it is scaled-dot-product attention."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def can_share(model: Any, cache: Any) -> bool:
    """Whether the model was built with this attention and has no layer with a window, nor a cap on its scores."""
    return (
        model.config._attn_implementation == NAME
        and all(isinstance(layer, GrowingLayer) for layer in cache.layers)
        and not getattr(model.config, "attn_logit_softcapping", None)
    )


@dataclass
class SharedPrefix:
    """The prompts of a batch. Sizes: P prompts, n responses each, G key heads, W positions, R rows still written."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of every layer: (P, G, W, size of a head)."""
    padding_bias_P1W: Tensor
    """Added to scores: minus infinity where a prompt is padded."""
    n: int
    place_R: Tensor
    """Which of the P x n responses each row is."""

    def keep(self, index_K: Tensor) -> None:
        """Only these rows are still written; prompts without a row are dropped."""
        # Rows leave one by one, prompts only with their last row: until then the places of ended rows stay empty.
        place_K = self.place_R[index_K]
        prompt_P, prompt_K = torch.unique(place_K // self.n, return_inverse=True)
        self.place_R = prompt_K * self.n + place_K % self.n
        if len(prompt_P) < len(self.padding_bias_P1W):
            self.padding_bias_P1W = self.padding_bias_P1W[prompt_P]
            self.layers = [(keys[prompt_P], values[prompt_P]) for keys, values in self.layers]

    def gathered(self, rows: Tensor) -> Tensor:
        """(R, ...) as (P, n, ...); what stands in the places of ended rows does not matter."""
        places = len(self.padding_bias_P1W) * self.n
        if places > len(rows):
            rows = rows.new_zeros(places, *rows.shape[1:]).index_copy_(0, self.place_R, rows)
        return rows.reshape(-1, self.n, *rows.shape[1:])

    def scattered(self, places: Tensor) -> Tensor:
        """The inverse of `gathered`."""
        flat = places.flatten(0, 1)
        return flat if len(flat) == len(self.place_R) else flat[self.place_R]


def share(cache: Any, mask_PW: Tensor, n: int) -> SharedPrefix:
    """Take the prompts out of the cache, which from now on holds what is written after them."""
    # In fp32 and added, so that one tensor serves every layer whatever format its scores have.
    padding_bias_P1W = torch.zeros(mask_PW.shape, device=mask_PW.device).masked_fill_(~mask_PW, float("-inf"))[:, None]
    layers = [layer.release() for layer in cache.layers]
    return SharedPrefix(layers, padding_bias_P1W, n, torch.arange(len(mask_PW) * n, device=mask_PW.device))


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    shared: SharedPrefix | None = options.pop("shared", None)
    if shared is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return plain
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    return attend(query * scale, key, value, shared, module.layer_idx), None


def attend(query: Tensor, key: Tensor, value: Tensor, shared: SharedPrefix, layer: int) -> Tensor:
    """One new token of every row over its prompt and what it has written: (R, heads, 1, X) in, (R, 1, heads, X) out.

    `query` is scaled already; `key` and `value` are those of the written tokens.
    """
    prompt_keys, prompt_values = shared.layers[layer]
    rows, heads, _, size = query.shape
    groups, width = key.shape[1], prompt_keys.shape[2]
    # Query heads that share a key head become rows of one product, so that keys are not repeated.
    grouped = query.view(rows, groups, heads // groups, size)
    own = torch.matmul(grouped, key.transpose(-1, -2))
    scores = torch.matmul(_by_prompt(shared.gathered(grouped)), prompt_keys.transpose(-1, -2))
    scores = scores + shared.padding_bias_P1W[:, None]
    # One softmax over both parts: as exact as attention over an unshared cache, with no logsumexp to merge.
    both = torch.cat([shared.scattered(_by_place(scores, shared.n)), own], -1)
    weights = torch.softmax(both, -1, dtype=torch.promote_types(both.dtype, torch.float32)).to(value.dtype)
    before = torch.matmul(_by_prompt(shared.gathered(weights[..., :width])), prompt_values)
    out = shared.scattered(_by_place(before, shared.n)) + torch.matmul(weights[..., width:], value)
    return out.reshape(rows, 1, heads, size)


def _by_prompt(places: Tensor) -> Tensor:
    """(P, n, groups, heads a group, X) as (P, groups, n x heads a group, X)."""
    return places.transpose(1, 2).flatten(2, 3)


def _by_place(prompts: Tensor, n: int) -> Tensor:
    """The inverse of `_by_prompt`."""
    many, groups, queries, width = prompts.shape
    return prompts.reshape(many, groups, n, queries // n, width).transpose(1, 2)
