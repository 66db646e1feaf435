"""LoRA (Hu et al. 2021, arXiv 2106.09685): small trained matrices beside frozen ones, by peft's layers.

The layers are put into the model as it is: its class, its backbone and its head stay where transformers has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.ranges import at_least, positive
from stepdpo.models.quantise import Merge
from stepdpo.runtime.secrets import redact_text

NAME = "default"
"""What peft calls the only adapter of a model."""
ALL = "all-linear"
NEEDS_PEFT = "adapter=lora needs peft: pip install 'stepdpo[lora]'"


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

    B starts at zero, so policy and reference begin as the same function. There is no dropout, for the same reason.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: Any = ALL
    """`all-linear` (every linear layer but the head), or a list of names such as q_proj."""
    head: bool = False
    """Adapt the output head too. Tied embeddings stay as they are: the adapter belongs to the head alone."""
    rslora: bool = False
    """s = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732)."""
    seed: int = 0
    """Seed of the first weights of every A."""
    base: FrozenBase | None = None
    """How the frozen matrices are held; null: as they are trained otherwise (QLoRA: `quantise.Nf4`)."""

    package: ClassVar[tuple[str, str]] = ("peft", NEEDS_PEFT)
    """What is imported once it is opened, and what is said where that is missing."""

    def __post_init__(self) -> None:
        at_least(1, rank=self.rank)
        positive(alpha=self.alpha)
        names = [self.targets] if isinstance(self.targets, str) else self.targets
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"targets must be {ALL} or a list of names, got {self.targets!r}")

    def attach(self, model: Any) -> Any:
        """The model with adapters in place, everything else frozen. Raises UserError for targets it has not."""
        names = targets(model, self.targets, self.head)
        peft = _peft()
        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=redact_text(getattr(model.config, "_name_or_path", None) or "") or None,
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=names,
            lora_dropout=0.0,
            bias="none",
            use_rslora=self.rslora,
        )
        model.requires_grad_(False)  # before the adapters are there, so that theirs stay trainable
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # head=true: merged files untie
            torch.manual_seed(self.seed)  # within the fork: what is drawn after an adapter does not depend on it
            model = peft.inject_adapter_in_model(config, model, adapter_name=NAME)
        # peft keeps adapters of bfloat16 models in float32. Here a model has one number format, and DeepSpeed keeps
        # master weights in float32 of its own. Beside a quantised base there is none to follow: small updates would be
        # lost in 16 bits, and codes of 4 bits are no numbers.
        for layer in layers(model).values():
            dtype = torch.float32 if self.base else layer.base_layer.weight.dtype
            for part in (layer.lora_A[NAME], layer.lora_B[NAME]):
                part.to(dtype).requires_grad_(True)
        return model


def base_of(adapter: Adapter) -> FrozenBase | None:
    """How the frozen matrices of all models of a run are held, where that is not as they were loaded."""
    base: FrozenBase | None = getattr(adapter, "base", None)
    return base


def targets(model: Any, wanted: str | list[str], head: bool) -> list[str]:
    """Last names of the linear layers to adapt. Raises UserError when a wanted name fits none."""
    output = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    heads = [name for name in linear if model.get_submodule(name) is output]
    inner = [name for name in linear if name not in heads]
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


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _fits(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError(NEEDS_PEFT) from error
    return peft


def layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by their names in the model without adapters; none without peft's layers in it."""
    return {name: module for name, module in model.named_modules() if _adapted(module)}


def _adapted(module: nn.Module) -> bool:
    """Told by its parts, so that a model without adapters needs no peft."""
    return hasattr(module, "base_layer") and NAME in getattr(module, "lora_A", ())


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within the block the model is the one it was before any adapter; no weight is touched.

    For passes without a gradient that end inside the block. A backward pass computes checkpointed activations again,
    and must find the adapters as its forward pass had them.
    """
    # Only those that are on: one switched off by an outer block must not come back at the end of this one.
    adapted = [layer for layer in layers(model).values() if not layer.disable_adapters]
    for layer in adapted:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted:
            layer.enable_adapters(True)


def head_parts(head: Any) -> tuple[nn.Parameter, nn.Parameter | None, nn.Parameter | None, float]:
    """(weight_VH, down_RH, up_VR, scaling) of an output head: logits = h W^T + (scaling h down^T) up^T.

    Without an adapter, or with it switched off, down and up are None.
    """
    if not _adapted(head):
        return head.weight, None, None, 0.0
    if head.disable_adapters:
        return head.base_layer.weight, None, None, 0.0
    return head.base_layer.weight, head.lora_A[NAME].weight, head.lora_B[NAME].weight, float(head.scaling[NAME])


def merged(
    weights: Mapping[str, Tensor], scaling: Mapping[str, float], tied: str | None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A state dict under the names of the model without adapters, each adapted matrix as W + s B A, in `dtype` or W's.

    `scaling` holds s by layer. `tied` names the embeddings that an adapted head shares its matrix with: where the
    state dict has that matrix only once, the head takes it from there.
    """
    plain = {_base_name(name): value for name, value in weights.items() if not _of_adapter(name)}
    for layer, s in scaling.items():
        down_RI, up_OR = (weights[f"{layer}.{part}.{NAME}.weight"] for part in ("lora_A", "lora_B"))
        name = f"{layer}.weight"
        # Tied embeddings are one matrix, under the embeddings' name. An adapter on the head must not reach the input
        # side, so the head becomes a matrix of its own and the two are no longer tied.
        base_OI = plain[name] if name in plain or tied is None else plain[tied]
        # Merged in float32: a product of low-rank factors is often smaller than bfloat16's step at the weight.
        update_OI = s * (up_OR.float() @ down_RI.float())
        plain[name] = (base_OI.float() + update_OI).to(dtype or base_OI.dtype)
    return plain


def adapter_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter alone, under the names of peft's own files."""
    return {
        f"base_model.model.{name.replace(f'.{NAME}.', '.')}": value.contiguous()
        for name, value in weights.items()
        if _of_adapter(name)
    }


def _of_adapter(name: str) -> bool:
    return f".lora_A.{NAME}." in name or f".lora_B.{NAME}." in name


def _base_name(name: str) -> str:
    return name.replace(".base_layer.", ".")
