"""LoRA (Hu et al. 2021, arXiv 2106.09685): small trained matrices beside frozen ones, by peft's layers.

The layers are put into the model as it is: its class, its backbone and its head stay where transformers has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.ranges import at_least, positive
from stepdpo.models import start_adapter
from stepdpo.models.adapter_layers import NAME, NEEDS_PEFT, inject, layers
from stepdpo.models.quantise import Merge
from stepdpo.models.start_adapter import StartAdapter

ALL = "all-linear"
RANK, ALPHA = 16, 32.0
"""Of an adapter that starts as nothing, where the settings do not say."""


class FrozenBase(Protocol):
    """How the frozen matrices of a model are held."""

    @property
    def merge(self) -> Merge:
        """What a finished adapter is added to."""
        ...

    def quantise(self, model: Any, device: torch.device) -> None:
        """Change the model in place, on `device`."""
        ...

    def key(self, computed: torch.dtype) -> Mapping[str, Any]:
        """What tells it from others, for a model that computes in this format."""
        ...


class Adapter(Protocol):
    """A part of the group `adapter`: which weights of a model are trained. One with a `base` has it frozen so."""

    def attach(self, model: Any) -> Any:
        """The model, changed in place, with `requires_grad` on what is trained alone."""
        ...


@dataclass(frozen=True)
class NoAdapter:
    """Every weight is trained."""

    def attach(self, model: Any) -> Any:
        """The model as it is."""
        return model


@dataclass(frozen=True)
class Lora:
    """Each chosen matrix W acts as W + s B A, with s = alpha / rank; only A and B are trained.

    B starts at zero, so policy and reference begin as the same function, or both from `start`. There is no dropout, for
    the same reason. What is not said of the shape is that of `start`, else the value named beside it.
    """

    rank: int | None = None
    """16."""
    alpha: float | None = None
    """32."""
    targets: Any = None
    """`all-linear` (every linear layer but the head), which is the default, or a list of names such as q_proj."""
    head: bool | None = None
    """Adapt the output head too: no. Tied embeddings stay as they are: the adapter belongs to the head alone."""
    rslora: bool | None = None
    """s = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732): no."""
    seed: int = 0
    """Seed of the first weights of every A."""
    start: str | None = None
    """Folder of an adapter in peft's format, whose weights are the first ones and, with the base, the reference."""
    base: FrozenBase | None = None
    """How the frozen matrices are held; null: as they are trained otherwise (QLoRA: `quantise.Nf4`)."""

    package: ClassVar[tuple[str, str]] = ("peft", NEEDS_PEFT)
    """What is imported once it is opened, and what is said where that is missing."""

    def __post_init__(self) -> None:
        at_least(1, rank=self.rank)
        positive(alpha=self.alpha)
        names = [self.targets] if isinstance(self.targets, str) else self.targets
        if names is not None and not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
            raise ValueError(f"targets must be {ALL} or a list of names, got {self.targets!r}")

    def attach(self, model: Any) -> Any:
        """The model with adapters in place, everything else frozen.

        Raises UserError for targets it has not, and for a `start` that is damaged, does not fit, or is not what the
        settings say.
        """
        start = start_adapter.read(self.start) if self.start else None
        words = self._as(start, model) if start else self._anew(model)
        model.requires_grad_(False)  # before the adapters are there, so that theirs stay trainable
        try:
            inject(model, words, self.seed)
        except ValueError as error:
            if start is None:
                raise
            raise UserError(f"adapter.start: {start.folder!r} does not fit the model ({error})") from error
        # peft keeps adapters of bfloat16 models in float32. Here a model has one number format, and DeepSpeed keeps
        # master weights in float32 of its own. Beside a quantised base there is none to follow: small updates would be
        # lost in 16 bits, and codes of 4 bits are no numbers.
        adapted = layers(model)
        for layer in adapted.values():
            dtype = torch.float32 if self.base else layer.base_layer.weight.dtype
            for part in (layer.lora_A[NAME], layer.lora_B[NAME]):
                part.to(dtype).requires_grad_(True)
        if start:
            start.fill(adapted, NAME)
        return model

    def _anew(self, model: Any) -> dict[str, Any]:
        """Shape of an adapter that starts as nothing, in peft's words."""
        return {
            "r": self.rank or RANK,
            "lora_alpha": self.alpha or ALPHA,
            "use_rslora": bool(self.rslora),
            "target_modules": targets(model, self.targets or ALL, bool(self.head)),
        }

    def _as(self, start: StartAdapter, model: Any) -> Mapping[str, Any]:
        """That of `start`; UserError for a setting that says otherwise."""
        of_head, inner = _heads(model), _inner(model)
        chosen = {n for n in inner if any(_fits(n, one) for one in targets(model, self.targets or ALL, False))}
        there = {
            "rank": (self.rank, start.settings["r"]),
            "alpha": (self.alpha, start.settings["lora_alpha"]),
            "rslora": (self.rslora, bool(start.settings.get("use_rslora"))),
            "head": (self.head, any(name in start.weights for name in of_head)),
            "targets": (self.targets and chosen, set(start.weights) - set(of_head)),
        }
        for name, (wanted, own) in there.items():
            if wanted is not None and wanted != own:
                said = sorted({_last(n) for n in own}) if isinstance(own, set) else own
                given = str(getattr(self, name)).replace(" ", "").replace("'", "")
                raise UserError(
                    f"adapter.{name}={given}: the adapter in {start.folder!r} has {said}; leave adapter.{name} out, "
                    "and it is taken from there"
                )
        return start.settings


def start_of(adapter: Adapter) -> str | None:
    """Folder of the adapter that the policy starts from, where there is one."""
    start: str | None = getattr(adapter, "start", None)
    return start


def base_of(adapter: Adapter) -> FrozenBase | None:
    """How the frozen matrices of all models of a run are held, where that is not as they were loaded."""
    base: FrozenBase | None = getattr(adapter, "base", None)
    return base


def targets(model: Any, wanted: str | list[str], head: bool) -> list[str]:
    """Last names of the linear layers to adapt. Raises UserError when a wanted name fits none."""
    heads, inner = _heads(model), _inner(model)
    if not inner:
        raise UserError(f"adapter: {type(model).__name__} has no linear layers to adapt")
    named = [wanted] if isinstance(wanted, str) else wanted
    chosen = {_last(name) for name in inner} if wanted == ALL else set(named)
    for name in sorted(chosen):
        if any(_fits(one, name) for one in heads):
            raise UserError(f"adapter.targets: {name!r} is the output head; write adapter.head=true for that")
        if not any(_fits(one, name) for one in inner):
            known = {_last(one) for one in inner}
            raise UserError(f"adapter.targets: the model has no linear layer {name!r}; {nearest(name, known)}")
    # The head by its whole name: peft matches ends of names, and an inner layer may be called like it.
    return sorted({*chosen, *(heads if head else ())})


def _heads(model: Any) -> list[str]:
    """Names of the output head."""
    output = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is output]


def _inner(model: Any) -> list[str]:
    """Names of the other linear layers."""
    output = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not output]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _fits(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")
