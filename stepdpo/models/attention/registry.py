"""Tree attention as transformers attention backends: no patched model, and no mask made by the model.

Four words, one attention mask (`j <= i < ends[j]`): `runs` computes just the visible keys of every segment of a row,
`flex` is FlexAttention on a GPU, `dense` is the slow and obvious twin, `auto` takes flex on a GPU and runs elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface

from stepdpo.core.errors import UserError
from stepdpo.models.attention import dense, flex, segments
from stepdpo.models.attention.metadata import BLOCK, TreeMask
from stepdpo.models.head import as_autocast
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.trie import Segment


class Attention(Enum):
    """Which code computes attention over token trees; the result is the same up to rounding."""

    auto = "auto"
    """flex on a GPU, runs on a CPU."""
    runs = "runs"
    """Scaled-dot-product attention of every segment over its ancestors and itself."""
    flex = "flex"
    """FlexAttention with a block mask made once a batch."""
    dense = "dense"
    """One dense mask: slow, for comparison."""


NO_MATTER = {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}
"""Arguments of an attention that say nothing of who sees whom: positions are in queries and keys already."""
Compute = Callable[[Tensor, Tensor, Tensor, TreeMask, float, float | None], Tensor]
"""(query, key, value, tree, scale, softcap) -> output, all (rows, heads, positions, head size)."""
COMPUTE: dict[Attention, Compute] = {
    Attention.runs: segments.attend,
    Attention.flex: flex.attend,
    Attention.dense: dense.attend,
}
# One name a backend, given to the model when it is built and never changed after. Gradient checkpointing runs the
# forward pass a second time: were another backend set by then, its gradients would be silently wrong, since
# transformers looks the name up at every call.
FLEX_NEEDS = "attention=flex needs a CUDA device (on a CPU it has no backward pass); choose attention=runs"
NAMES = {Attention.runs: "stepdpo_tree", Attention.flex: "stepdpo_flex", Attention.dense: "stepdpo_dense"}
"""What transformers calls them."""


def register(kind: Attention = Attention.runs, device: torch.device | None = None) -> str:
    """Make the backend known to transformers (without a mask function, so no mask is built); returns its name.

    Raises UserError if the backend cannot train on the device.
    """
    on_gpu = device is not None and device.type == "cuda"
    if kind is Attention.auto:
        kind = Attention.flex if on_gpu else Attention.runs
    if kind is Attention.flex and device is not None and not on_gpu:
        raise UserError(FLEX_NEEDS)
    # No mask function goes with it: transformers would build an L x L mask, and find documents in the positions, which
    # start again at every branch.
    AttentionInterface.register(NAMES[kind], _backend(COMPUTE[kind]))
    return NAMES[kind]


def tree_inputs(batch: TreeBatch) -> dict[str, Any]:
    """What a model with one of these backends must be called with, besides tokens and positions."""
    return {"tree": TreeMask(batch.segments, batch.ends_RL), "attention_mask": None, "use_cache": False}


def fitted(batch: TreeBatch, model: Any) -> TreeBatch:
    """The batch in the shape that the model's backend wants."""
    # Whole blocks for FlexAttention, so that it compiles for few shapes.
    return padded(batch, BLOCK) if model.config._attn_implementation == NAMES[Attention.flex] else batch


def padded(batch: TreeBatch, multiple: int) -> TreeBatch:
    """Rows filled up to a multiple of tokens by a segment that nothing else sees, at positions from 0."""
    rows, length = batch.input_ids_RL.shape
    more = -length % multiple
    if not more:
        return batch
    row_T, place_T = batch.source_T // length, batch.source_T % length
    positions = torch.arange(more, device=batch.position_ids_RL.device).expand(rows, more)
    return dataclasses.replace(
        batch,
        input_ids_RL=pad(batch.input_ids_RL, (0, more)),
        position_ids_RL=torch.cat([batch.position_ids_RL, positions], dim=1),
        ends_RL=pad(batch.ends_RL, (0, more), value=length + more),
        segments=(*batch.segments, *(Segment(row, length, length + more) for row in range(rows))),
        source_T=row_T * (length + more) + place_T,
    )


def _ignored(given: Mapping[str, Any], config: Any) -> list[str]:
    """Names of what an attention was given and the tree does not stand for."""
    window = getattr(config, "sliding_window", None)  # compared with the longest sequence before training
    no_matter = {"sliding_window": (None, window), "is_causal": (None, True)}
    return [
        name
        for name, value in given.items()
        if name not in NO_MATTER
        and not (name in no_matter and any(value is fine or value == fine for fine in no_matter[name]))
        and not (name not in no_matter and (value is None or value is False))
    ]


def _backend(compute: Compute) -> Callable[..., tuple[Tensor, None]]:
    def attention(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        softcap: float | None = None,
        tree: TreeMask | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """Raises RuntimeError without a tree or with dropout, UserError for arguments that would be ignored."""
        # Plain causal attention would let a branch see its siblings, and no loss would look wrong for it.
        if tree is None:
            raise RuntimeError("a model built for training on token trees was called without its tree")
        if dropout:
            raise RuntimeError("tree attention has no dropout")
        # A model's own mask, bias, sinks or choice of keys: without them it is another function, and nothing tells.
        ignored = _ignored({"attention_mask": attention_mask, **others}, getattr(module, "config", None))
        if ignored:
            name = getattr(module.config, "model_type", type(module).__name__) if hasattr(module, "config") else "?"
            raise UserError(
                f"model: {name} gives its attention {', '.join(ignored)} of its own, which cannot read token trees"
            )
        # The same number format for all three: under autocast, norms leave queries and keys in fp32 beside bf16 values.
        query, key, value = (as_autocast(x) for x in (query, key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return compute(query, key, value, tree, scale, softcap).transpose(1, 2).contiguous(), None

    return attention
