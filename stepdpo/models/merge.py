"""Weights of a model with adapters -> those of a plain model, and those of its trained adapter alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stepdpo.models.adapter_layers import NAME

PARTS = ("lora_A", "lora_B")


def merged(
    weights: Mapping[str, Tensor], scaling: Mapping[str, float], tied: str | None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A state dict under the names of the model without adapters, each adapted matrix as W + s B A, in `dtype` or W's.

    `scaling` holds s by layer. `tied` names the embeddings that an adapted head shares its matrix with: where the
    state dict has that matrix only once, the head takes it from there.
    """
    plain = {_base_name(name): value for name, value in weights.items() if not _of_any_adapter(name)}
    for layer, s in scaling.items():
        down_RI, up_OR = (weights[f"{layer}.{part}.{NAME}.weight"] for part in PARTS)
        name = f"{layer}.weight"
        # Tied embeddings are one matrix, under the embeddings' name. An adapter on the head must not reach the input
        # side, so the head becomes a matrix of its own and the two are no longer tied.
        base_OI = plain[name] if name in plain or tied is None else plain[tied]
        # Merged in float32: a product of low-rank factors is often smaller than bfloat16's step at the weight.
        update_OI = s * (up_OR.float() @ down_RI.float())
        plain[name] = (base_OI.float() + update_OI).to(dtype or base_OI.dtype)
    return plain


def adapter_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained adapter alone, under the names of peft's own files."""
    return {
        f"base_model.model.{name.replace(f'.{NAME}.', '.')}": value.contiguous()
        for name, value in weights.items()
        if _of_adapter(name)
    }


def _of_adapter(name: str) -> bool:
    return any(f".{part}.{NAME}." in name for part in PARTS)


def _of_any_adapter(name: str) -> bool:
    """Of the frozen one too, which the trained one has grown out of: added as well, it would count twice."""
    return any(f".{part}." in name for part in PARTS)


def _base_name(name: str) -> str:
    return name.replace(".base_layer.", ".")
