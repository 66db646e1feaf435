"""NF4 (Dettmers et al. 2023, arXiv 2305.14314): the frozen matrices of a model in 4 bits, by bitsandbytes' layers.

Every linear layer but the output head is held so. Embeddings, head and norms stay in the format they are loaded in, and
so does a layer whose rows are no whole blocks, as no large model's are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stepdpo.core.errors import UserError

BLOCK = 64
"""Numbers that share a scale. bitsandbytes' layers know no other size when they are read from files."""
TYPE = "nf4"
NEEDS_BITSANDBYTES = "adapter=qlora needs bitsandbytes: pip install 'stepdpo[qlora]'"


class Merge(Enum):
    """What a finished adapter is added to."""

    dequantised = "dequantised"
    """The matrices that it was trained beside: what is saved is the model that was trained, up to rounding."""
    original = "original"
    """The matrices before quantisation: another model than the one that was trained."""


@dataclass(frozen=True)
class Nf4:
    """Each frozen matrix as 4-bit codes of normally distributed numbers, in blocks with a scale each."""

    double: bool = True
    """Quantise the scales too: 4.13 bits a number instead of 4.5."""
    merge: Merge = Merge.dequantised

    package: ClassVar[tuple[str, str]] = ("bitsandbytes", NEEDS_BITSANDBYTES)
    """What is imported once it is opened, and what is said where that is missing."""

    def quantise(self, model: Any, device: torch.device) -> None:
        """Replace the linear layers, one at a time and on `device`, so that no more than one is there twice.

        They compute in the format that the model is in. UserError for a model that is quantised already.
        """
        bnb = _bitsandbytes()
        if getattr(model.config, "quantization_config", None) or quantised(model):
            raise UserError("adapter=qlora: the model's files are quantised already; take the files in 16 or 32 bits")
        names = _inner_linears(model)
        if not names:
            raise UserError(f"adapter=qlora: no linear layer of the model has rows of a multiple of {BLOCK} numbers")
        for name in names:
            parent, _, last = name.rpartition(".")
            within = model.get_submodule(parent)
            setattr(within, last, _in_4_bits(bnb, getattr(within, last), self.double, device))
        assert model.get_output_embeddings().weight.is_floating_point()
        assert model.get_input_embeddings().weight.is_floating_point()

    def key(self, computed: torch.dtype) -> dict[str, Any]:
        """What tells the dequantised matrices, and what is computed with them, from others."""
        return {
            "type": TYPE, "block": BLOCK, "double": self.double, "compute": str(computed).removeprefix("torch."),
            "bitsandbytes": _bitsandbytes().__version__,
        }  # fmt: skip


def told(key: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """What is written beside an adapter: `key` of its base, what tells the original weights, and how others load it.

    `quantization_config` holds the words of transformers' BitsAndBytesConfig.
    """
    words = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": key["type"],
        "bnb_4bit_use_double_quant": key["double"],
        "bnb_4bit_compute_dtype": key["compute"],
    }
    return {**key, "weights": weights, "quantization_config": words}


def _bitsandbytes() -> Any:
    log = logging.getLogger("bitsandbytes")
    before = log.level
    log.setLevel(logging.ERROR)  # on some CPUs it advises a package for generating text in 4 bits, which nobody does
    try:
        import bitsandbytes
    except ImportError as error:
        raise UserError(NEEDS_BITSANDBYTES) from error
    finally:
        log.setLevel(before)
    return bitsandbytes


def _inner_linears(model: Any) -> list[str]:
    """Names alone: a list of modules would keep every matrix until the last one is replaced."""
    head = model.get_output_embeddings()
    inner = {n: module for n, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}
    # bitsandbytes 0.50.2 on a CPU lets every row begin a block when it reads what it wrote without that: a block that
    # goes on in the next row gets other scales. Of a normal 448 x 160 matrix 0.17 is lost so, and 0.073 otherwise.
    return [name for name, module in inner.items() if module.in_features % BLOCK == 0]


def _in_4_bits(bnb: Any, linear: nn.Linear, double: bool, device: torch.device) -> Any:
    layer = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        compress_statistics=double,
        quant_type=TYPE,
        device="meta",  # its own first weights cost no memory, and draw no random numbers
    )
    weight = bnb.nn.Params4bit(
        linear.weight.data, False, blocksize=BLOCK, compress_statistics=double, quant_type=TYPE, module=layer
    )
    layer.weight = weight.to(device)  # quantised by that
    if linear.bias is not None:
        layer.bias = nn.Parameter(linear.bias.data.to(device), requires_grad=False)
    # On some CPUs it would pack the codes anew in its first pass without a gradient; they are to stay as they are.
    layer.support_avx512bf16_for_cpu = False
    # The scales would be entries of a state dict without being parameters. What is frozen is no part of a state.
    layer.register_state_dict_post_hook(_without_scales)
    return layer.train(linear.training)


def _without_scales(layer: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}weight.")]:
        del state[name]


def quantised(model: nn.Module) -> dict[str, Any]:
    """The quantised layers by their names; told by their parts, so that a model without them needs no bitsandbytes."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and hasattr(module.weight, "quant_state")  # peft's layers are no nn.Linear
    }


def dequantise(layer: Any) -> Tensor:
    """The matrix (out, in) that a quantised layer multiplies by, on the CPU, in the format it computes in."""
    whole: Tensor = _bitsandbytes().functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return whole.cpu()


def dequantised(
    model: nn.Module, weights: Mapping[str, Tensor], original: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A state dict of `model` in which no matrix is in 4 bits; where `original` ones are given, with those instead.

    `original` has the names of the model without adapters.
    """
    whole = dict(weights)
    for name, layer in quantised(model).items():
        plain = f"{name.removesuffix('.base_layer')}.weight"
        whole[f"{name}.weight"] = dequantise(layer) if original is None else original[plain]
    return whole
