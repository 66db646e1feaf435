"""A value head: one number for every step, read from the hidden state at its last token.

Dropout, a linear layer to one number; what squashes it is the loss's, and stands in the file's metadata. It is computed
in fp32 whatever the model is in. AlphaMath's (arXiv 2405.03553) reads the newline after the step, we its last token.

    model/value_head.safetensors    weight (1, H), bias (1), passes (); metadata: squash
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stepdpo.core.errors import UserError
from stepdpo.tokens.step_scores import Squash, Trunk, ValueHeadSpec

FILE = "value_head.safetensors"
STD = 0.02
"""Of the first weights, where a model's configuration does not say how its own were drawn."""


class ValueHead(nn.Module):
    """Hidden states (S, H) -> numbers (S,) in fp32, not yet squashed."""

    def __init__(self, spec: ValueHeadSpec, hidden: int, std: float) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(spec.seed)
        self.weight = nn.Parameter(std * torch.randn(1, hidden, generator=generator))
        self.bias = nn.Parameter(torch.zeros(1))
        # Counted and saved, as the seed of the next dropout: a resumed run then drops what an uninterrupted one does.
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    passes: Tensor

    def forward(self, hidden_SH: Tensor) -> Tensor:
        """With gradient, dropout is on."""
        with torch.autocast(hidden_SH.device.type, enabled=False):
            if self.spec.trunk is not Trunk.live:
                hidden_SH = hidden_SH.detach()
            hidden_SH = hidden_SH.float()
            if torch.is_grad_enabled() and self.spec.dropout:
                hidden_SH = hidden_SH * self._kept(hidden_SH)
            return F.linear(hidden_SH, self.weight.float(), self.bias.float()).squeeze(1)

    def _kept(self, hidden_SH: Tensor) -> Tensor:
        """0 for what is dropped, and for the rest what keeps the mean."""
        self.passes += 1
        generator = torch.Generator().manual_seed((self.spec.seed << 32) + int(self.passes))
        kept = torch.rand(hidden_SH.shape, generator=generator) >= self.spec.dropout
        return kept.to(hidden_SH) / (1 - self.spec.dropout)


def make(spec: ValueHeadSpec, model: Any, start: Path | None) -> ValueHead:
    """The head of a model: the one in the folder it was loaded from, else a new one.

    Raises UserError for a file that does not fit.
    """
    hidden = model.get_output_embeddings().weight.shape[-1]
    hidden = getattr(model.config, "hidden_size", hidden)  # sharded, the matrix itself is empty
    head = ValueHead(spec, hidden, getattr(model.config, "initializer_range", STD))
    if start is not None and (start / FILE).is_file():
        found, _ = read(start)
        if found["weight"].shape != head.weight.shape:
            shape = tuple(found["weight"].shape)
            raise UserError(f"{start / FILE}: weight is {shape} and should be {tuple(head.weight.shape)}")
        head.load_state_dict({**found, "passes": head.passes}, strict=True)
    return head


def write(folder: Path, weights: Mapping[str, Tensor], squash: Squash) -> None:
    """value_head.safetensors beside a model, which programs that know no value head open as it is."""
    save_file({name: weights[name] for name in ("weight", "bias")}, folder / FILE, metadata={"squash": squash.value})


def read(folder: Path) -> tuple[dict[str, Tensor], Squash]:
    """The weights in a folder and what squashes their output. UserError where there are none, or damaged ones."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in ("weight", "bias")}, Squash(metadata.get("squash"))
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{folder / FILE}: no value head can be read ({error})") from error


@dataclass(frozen=True)
class LoadedHead:
    """A value head as it is used once a model is trained."""

    weight_H: Tensor
    bias: Tensor
    squash: Squash

    @classmethod
    def of(cls, folder: Path) -> LoadedHead:
        """That of a model's folder; UserError where there is none."""
        weights, squash = read(folder)
        return cls(weights["weight"][0], weights["bias"], squash)

    def __call__(self, hidden_SH: Tensor) -> Tensor:
        """(S,): in [-1, 1] for tanh, the expected outcome; in [0, 1] for sigmoid, how likely a step is right."""
        return self.squash(hidden_SH.float() @ self.weight_H + self.bias)
