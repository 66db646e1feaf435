"""Weights as folders that other programs open: the model whole, and an adapter beside it in peft's format."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stepdpo.data.templates import CARD
from stepdpo.models.lora import NAME, adapter_weights, layers, merged

ADAPTER = "adapter"
"""The folder of the adapter alone, for `PeftModel.from_pretrained(base, folder / ADAPTER)`."""


def write_model(model: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """`weights` is the model's state dict on the CPU; adapters are merged into what they adapt."""
    adapted = layers(model)
    if not adapted:
        model.save_pretrained(folder, state_dict=dict(weights))
        return
    head = model.get_output_embeddings()
    embeddings = next((n for n, module in model.named_modules() if module is model.get_input_embeddings()), "")
    tied = getattr(model.config, "tie_word_embeddings", False)
    untie = tied and head in adapted.values()
    scaling = {name: float(layer.scaling[NAME]) for name, layer in adapted.items()}
    # Merged before saving, so that a checkpoint is a plain model to programs that know nothing of adapters.
    whole = merged(weights, scaling, f"{embeddings}.weight" if untie else None)
    _without_adapters(model, untie).save_pretrained(folder, state_dict=whole)
    (folder / ADAPTER).mkdir(exist_ok=True)
    save_file(adapter_weights(weights), folder / ADAPTER / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config[NAME].save_pretrained(folder / ADAPTER)


def write_card(folder: Path, content: dict[str, Any]) -> None:
    """stepdpo.json beside the weights: the template and how the model was trained."""
    (folder / CARD).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _without_adapters(model: Any, untie: bool) -> Any:
    """A model of the same class and configuration that holds no weights."""
    config = copy.deepcopy(model.config)
    if untie:
        config.tie_word_embeddings = False
    # save_pretrained wants a module to take names and tied weights from; on `meta` that costs no memory.
    with torch.device("meta"):
        bare = type(model)(config)
    bare.generation_config = model.generation_config
    return bare.to(model.dtype)
