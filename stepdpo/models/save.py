"""Weights as folders that other programs open: the model whole, and an adapter beside it in peft's format."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stepdpo.data.template_card import CARD
from stepdpo.models.adapter_layers import NAME, layers
from stepdpo.models.base_files import CONFIG
from stepdpo.models.merge import adapter_weights, merged
from stepdpo.models.quantise import dequantised
from stepdpo.models.start_adapter import ADAPTER, BASE, WEIGHTS


class SaveDtype(Enum):
    """Number format of the weights in a checkpoint; what resuming needs is kept as it was computed."""

    trained = "trained"
    """As they are trained: nothing is rounded. The engine `local` trains in float32 whatever the base is in."""
    base = "base"
    """As the base's files have them."""
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def save_dtype(wanted: SaveDtype, base: Mapping[str, Any]) -> torch.dtype | None:
    """The torch type; None for no change. `base` is the configuration of the base."""
    named = str(base.get("dtype") or base.get("torch_dtype") or "float32") if wanted is SaveDtype.base else wanted.value
    return None if wanted is SaveDtype.trained else getattr(torch, named)


def write_model(
    model: Any, weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype | None = None,
    told: Mapping[str, Any] | None = None, original: Mapping[str, Tensor] | None = None,
) -> None:  # fmt: skip
    """`weights` is the model's state dict on the CPU; adapters are merged into what they adapt.

    `dtype` is the number format to write, None for that of the weights. `told` is written beside an adapter; of a model
    in 4 bits `original` are the matrices to merge into, None for the dequantised ones.
    """
    adapted = layers(model)
    if not adapted:
        _save(model, weights, folder, dtype)
        return
    head = model.get_output_embeddings()
    embeddings = next((n for n, module in model.named_modules() if module is model.get_input_embeddings()), "")
    tied = getattr(model.config, "tie_word_embeddings", False)
    untie = tied and head in adapted.values()
    scaling = {name: float(layer.scaling[NAME]) for name, layer in adapted.items()}
    # Merged before saving, so that a checkpoint is a plain model to programs that know nothing of adapters.
    whole = merged(dequantised(model, weights, original), scaling, f"{embeddings}.weight" if untie else None, dtype)
    _save(_without_adapters(model, untie), whole, folder, dtype)
    (folder / ADAPTER).mkdir(exist_ok=True)
    save_file(adapter_weights(weights), folder / ADAPTER / WEIGHTS, metadata={"format": "pt"})
    settings = copy.copy(model.peft_config[NAME])
    for key in ("target_modules", "exclude_modules"):  # as a rule sets, whose order differs from process to process
        if isinstance(names := getattr(settings, key), set | list):
            setattr(settings, key, sorted(names))
    settings.save_pretrained(folder / ADAPTER)
    if told:
        (folder / ADAPTER / BASE).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save(model: Any, weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype | None) -> None:
    cast = {k: v.to(dtype) if dtype is not None and v.is_floating_point() else v for k, v in weights.items()}
    model.save_pretrained(folder, state_dict=cast)
    if dtype is not None:
        config = folder / CONFIG  # names the format of the module, which keeps its own
        content = json.loads(config.read_text(encoding="utf-8")) | {"dtype": str(dtype).removeprefix("torch.")}
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_card(folder: Path, content: dict[str, Any]) -> None:
    """stepdpo.json beside the weights: the template and how the model was trained."""
    (folder / CARD).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
