"""Which models can be trained on token trees. What would be computed wrongly, and in silence, is refused by name."""

from __future__ import annotations

import re
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.models.attention.registry import NAMES, Attention

KINDS = {"full_attention", "sliding_attention"}
"""Kinds of layers that tree attention serves; a sliding window must be as wide as any sequence."""
OF_THEIR_OWN = {"nemotron", "doge"}
"""Models that ask for an attention by name, and then do not hand on what it needs, or a mask that they make themselves.

Others that give a mask are refused at their first batch (`attention/registry`); these before anything is loaded."""
EXPERTS = re.compile(r"(?i)moe|experts?$|sparse.*(mlp|block)|router")
STATEFUL = re.compile(r"Mamba|SSM|Recurrent|Conv1d|ShortConv|Delta|LinearAttention|Lightning|Rwkv|LSTM")
"""Classes of modules that carry a state from one position into the next, whatever a mask says."""
SMALLEST_HEAD = 16
"""FlexAttention's kernel has none smaller."""


def refuse_unsupported(model: Any) -> None:
    """Raises UserError for a model whose layers would not see the tree, or not only the tree."""
    # Everything refused here would train without an error, and on another function than the model's.
    reason = _kind(model) or _layers(model) or _head(model) or _backend(model)
    if reason:
        raise UserError(f"model: {getattr(model.config, 'model_type', 'this model')} {reason}")


def _kind(model: Any) -> str | None:
    """Why not, in words that follow the model's name."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return "is an encoder with a decoder; only decoders are supported"
    if config.get_text_config() is not config:
        return "wraps a language model among others (images, sound); the language model alone may be supported"
    # Experts balance their load over the tokens of a batch, where a shared trunk counts once instead of twice.
    if any(EXPERTS.search(type(module).__name__) for module in model.modules()):
        return "is a mixture of experts, which is not supported"
    if not hasattr(model, model.base_model_prefix):
        return "keeps its layers where transformers does not say, and cannot be called without its head"
    return None


def _layers(model: Any) -> str | None:
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ()) - KINDS
    # A state flows from one branch of the row into the next, and no attention mask stops it.
    stateful = {type(m).__name__ for m in model.modules() if STATEFUL.search(type(m).__name__)}
    if kinds or stateful:
        return f"has layers that cannot read token trees ({', '.join(sorted(kinds | stateful))})"
    if getattr(config, "alibi", False):
        return "has positions by bias (alibi), which cannot read token trees"
    if not getattr(model, "_supports_attention_backend", False) or config.model_type in OF_THEIR_OWN:
        return "has an attention of its own, which cannot read token trees"
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        return "looks ahead (its attention is not causal), which is not supported"
    # A sink takes a share of every softmax, and none of the backends is given it.
    if any(name.rpartition(".")[2] in ("sinks", "sink") for name, _ in model.named_parameters()):
        return "has attention sinks, which are not supported"
    return None


def _head(model: Any) -> str | None:
    # logprobs.py multiplies hidden states with the head's weight alone.
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        return "has a bias on the output head, which is not supported"
    return None


def _backend(model: Any) -> str | None:
    if model.config._attn_implementation != NAMES[Attention.flex]:
        return None
    sizes = [module.head_dim for module in model.modules() if isinstance(getattr(module, "head_dim", None), int)]
    if min(sizes, default=SMALLEST_HEAD) < SMALLEST_HEAD:
        return f"has attention heads of {min(sizes)} numbers; flex needs {SMALLEST_HEAD}, so choose attention=runs"
    return None


def refuse_sliding_window(config: Any, longest: int) -> None:
    """Tree attention is full attention: a sliding window must be at least as long as the longest sequence."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    # Without `layer_types` a configuration that names a window means every layer.
    if window and longest > window and ("sliding_attention" in kinds or not kinds):
        raise UserError(
            f"model: {config.model_type} has layers with a window of {window} tokens (sliding_window), and "
            f"lengths.max_length={longest} is longer; set lengths.max_length={window} or less"
        )
