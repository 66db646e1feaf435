"""What both engines share: devices, number formats, parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stepdpo.core.errors import UserError
from stepdpo.models.scorer import Gather, Scorer, Scores
from stepdpo.runtime.processes import Processes
from stepdpo.tokens.batch import TreeBatch
from stepdpo.training.optimizer import AdamW

Build = Callable[[torch.dtype, Gather], Scorer]
"""(number format of the weights, gather) -> a Scorer."""


NO_GPU = "device=cuda: no GPU that torch can use is here; leave it at auto for the CPU"


class Dtype(Enum):
    """Number format that scores and gradients are computed in."""

    auto = "auto"
    """bfloat16 on a GPU, float32 on a CPU."""
    float32 = "float32"
    bfloat16 = "bfloat16"


class Device(Enum):
    """Where a process computes."""

    auto = "auto"
    """A GPU where there is one, else the CPU."""
    cpu = "cpu"
    cuda = "cuda"


class Engine(Processes, Protocol):
    """A training engine: the only thing that knows processes and devices."""

    model: Any
    """The policy, as transformers has it."""
    dtype: str
    """Number format that scores are computed in; a part of the reference cache's key."""

    def score(self, batch: TreeBatch) -> Scores:
        """Scorer.forward of the policy; every process must call it equally often."""
        ...

    def build_reference(self, build: Build) -> Callable[[TreeBatch], Scores]:
        """A second, frozen model that is scored as `score` does it."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of this process's share of the loss; `last`: of the optimizer step's micro-batches."""
        ...

    def step(self, lr: float) -> float:
        """Clip, update, clear the gradient; returns the gradient's norm before clipping."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The model's weights on the CPU of process 0."""
        ...

    def value_head(self) -> dict[str, Tensor]:
        """The value head's weights in fp32 on the CPU of process 0; none where there is no head."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write what resuming needs into a folder; every process must call it."""
        ...

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote; every process must call it."""
        ...


class EngineSpec(Protocol):
    """How to open an engine on a model."""

    @property
    def device(self) -> Device: ...

    @property
    def dtype(self) -> Dtype: ...

    def open(self, build: Build, optim: AdamW) -> AbstractContextManager[Engine]: ...


def pick_device(device: Device, local_rank: int = 0) -> torch.device:
    """The device of this process. Raises UserError for a GPU that is not there."""
    kind = device.value
    if device is Device.auto:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise UserError(f"engine.{NO_GPU}")
    return torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)


def pick_dtype(dtype: Dtype, device: torch.device) -> Dtype:
    """The number format, with `auto` decided."""
    if dtype is not Dtype.auto:
        return dtype
    return Dtype.bfloat16 if device.type == "cuda" else Dtype.float32


def recompute_activations(model: Any) -> None:
    """Keep only each layer's input and compute the layer again in the backward pass."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:  # the name in earlier releases of transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (norms, biases) do not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    shapes = {id(p): len(getattr(p, "ds_shape", p.shape)) for p in trained}
    groups = [
        {"params": [p for p in trained if shapes[id(p)] >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if shapes[id(p)] < 2], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def head_weights(scorer: Scorer, gather: Gather) -> dict[str, Tensor]:
    """The weights of a scorer's value head, made whole first."""
    named = dict(scorer.value_head.named_parameters()) if scorer.value_head is not None else {}
    with gather(list(named.values())):
        return {name: parameter.detach().float().cpu().clone() for name, parameter in named.items()}


def frozen_names(module: nn.Module) -> set[str]:
    """Names of the parameters that are not trained; a shared one under all its names."""
    return {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
