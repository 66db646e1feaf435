"""A model's weights written again, in another number format and in files of a bounded size, one file in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.integrity import WEIGHTS, weight_files

INDEX = f"{WEIGHTS}.index.json"


def write_shards(source: Path, target: Path, dtype: torch.dtype | None, most: int) -> int:
    """The weights of the folder `source` in the folder `target`, in files of at most `most` bytes; how many there are.

    A tensor of more than that is a file of its own. `dtype` is that of floating-point weights, None for no change.
    There is always an index, although one file needs none: vLLM and SGLang read every safetensors file of a folder
    without one, and would take a value head for a part of the model. Raises UserError for a weight that `dtype` has no
    number for.
    """
    parts: list[dict[str, Tensor]] = [{}]
    places: list[list[str]] = []
    size = total = 0
    for name, tensor in _tensors(source):
        written = _cast(name, tensor, dtype)
        bytes_ = written.numel() * written.element_size()
        if parts[-1] and size + bytes_ > most:
            places.append(_flush(parts.pop(), target, len(places)))
            parts.append({})
            size = 0
        parts[-1][name] = written
        size, total = size + bytes_, total + bytes_
    places.append(_flush(parts.pop(), target, len(places)))
    names = [WEIGHTS if len(places) == 1 else _numbered(number, len(places)) for number in range(len(places))]
    for number, name in enumerate(names):
        (target / _scratch(number)).rename(target / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {weight: name for name, held in zip(names, places, strict=True) for weight in held},
    }
    (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return len(places)


def _tensors(source: Path) -> Iterator[tuple[str, Tensor]]:
    for path in weight_files(source):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield name, file.get_tensor(name)


def cast_file(source: Path, target: Path, dtype: torch.dtype | None) -> None:
    """One safetensors file in another number format."""
    with safe_open(source, framework="pt") as file:
        held = {name: _cast(name, file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
        save_file(held, target, metadata=file.metadata())


def _cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    if not torch.isfinite(cast).all() and torch.isfinite(tensor).all():
        largest = tensor.abs().max().item()
        raise UserError(f"dtype: {name} holds {largest:g}, which float16 has no number for; take bfloat16")
    return cast


def _flush(part: dict[str, Tensor], target: Path, number: int) -> list[str]:
    save_file(part, target / _scratch(number), metadata={"format": "pt"})
    return list(part)


def _scratch(number: int) -> str:
    """The name of a file before it is known how many there are."""
    return f"shard-{number}"


def _numbered(number: int, of: int) -> str:
    return f"model-{number + 1:05d}-of-{of:05d}.safetensors"
