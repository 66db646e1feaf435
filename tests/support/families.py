"""A tiny model of each architecture that our recipes use, with what is peculiar to it switched on."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 32}
TWO_BASES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0},
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {}),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "llama3": ("Llama", {"rope_parameters": LLAMA_3}),
    "deepseek_math": ("Llama", {"num_key_value_heads": 4}),
    "mistral": ("Mistral", {"sliding_window": 32}),
    "gemma": ("Gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2", {"attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 20} | MIXED),
    "gemma3": ("Gemma3Text", {"query_pre_attn_scalar": 20, "rope_parameters": TWO_BASES} | MIXED),
    "granite": ("Granite", {"attention_multiplier": 0.3, "residual_multiplier": 0.7, "embedding_multiplier": 2.0}),
    "phi3": ("Phi3", {}),
}
"""Name -> (transformers' class, settings over SMALL)."""


def config(name: str, **more: Any) -> Any:
    kind, settings = FAMILIES[name]
    return getattr(transformers, f"{kind}Config")(**SMALL | settings | more)


def model(name: str, attention: str, **more: Any) -> Any:
    """The same weights every time; norms, which start at one, are moved as well."""
    settings = config(name, **more)
    settings._attn_implementation = attention
    torch.manual_seed(0)
    kind = FAMILIES[name][0].removesuffix("Text")
    built = getattr(transformers, f"{kind}ForCausalLM")(settings)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built.train()
