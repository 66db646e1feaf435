"""The layers that peft puts into a model: an adapter injected, a frozen copy of it held, one switched for the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from stepdpo.core.errors import UserError
from stepdpo.runtime.secrets import redact_text

NAME = "default"
"""What peft calls the adapter that is trained, as a rule the only one of a model."""
REFERENCE = "reference"
"""That of a frozen copy of it as it was when the run started, where it was more than nothing then."""
NEEDS_PEFT = "adapter=lora needs peft: pip install 'stepdpo[lora]'"


def inject(model: Any, words: Mapping[str, Any], seed: int) -> None:
    """Put a fresh adapter, described in peft's words, into the model. ValueError where none of its targets is there."""
    config = _peft().LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=redact_text(getattr(model.config, "_name_or_path", None) or "") or None,
        lora_dropout=0.0,
        bias="none",
        **words,
    )
    _inject(model, config, NAME, seed)


def _inject(model: Any, config: Any, name: str, seed: int) -> None:
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # head=true: merged files untie
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a second adapter is meant
        torch.manual_seed(seed)  # within the fork: what is drawn after an adapter does not depend on it
        _peft().inject_adapter_in_model(config, model, adapter_name=name)


def hold_start(model: Any) -> None:
    """Keep the adapter as it is now beside itself, frozen; `adapter_off` puts it in the other's place."""
    configs = dict(model.peft_config)
    _inject(model, configs[NAME], REFERENCE, 0)
    model.peft_config = configs  # the copy is nobody's to save
    for layer in layers(model).values():
        for part in (layer.lora_A, layer.lora_B):
            part[REFERENCE].to(part[NAME].weight.dtype).load_state_dict(part[NAME].state_dict())
        layer.set_adapter(NAME)  # which also freezes the other one


def layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by their names in the model without adapters; none without peft's layers in it."""
    return {name: module for name, module in model.named_modules() if _adapted(module)}


def _adapted(module: nn.Module) -> bool:
    """Told by its parts, so that a model without adapters needs no peft."""
    return hasattr(module, "base_layer") and NAME in getattr(module, "lora_A", ())


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within the block the model is the one it was before its adapter learnt anything; no weight is touched.

    That is the base, or the base with the adapter that `hold_start` kept. For passes without a gradient that end inside
    the block. A backward pass computes checkpointed activations again, and must find the adapters as its forward pass
    had them.
    """
    # Only those that are on: one switched off by an outer block must not come back at the end of this one.
    adapted = [layer for layer in layers(model).values() if _active(layer) == NAME]
    held = [layer for layer in adapted if REFERENCE in layer.lora_A]
    plain = [layer for layer in adapted if REFERENCE not in layer.lora_A]
    _switch(held, lambda layer: layer.set_adapter(REFERENCE))
    _switch(plain, lambda layer: layer.enable_adapters(False))
    try:
        yield
    finally:
        _switch(held, lambda layer: layer.set_adapter(NAME))
        _switch(plain, lambda layer: layer.enable_adapters(True))


def _switch(adapted: Sequence[Any], change: Callable[[Any], None]) -> None:
    """Change which adapter is on, and not which one learns, as peft would."""
    for layer in adapted:
        learns = [(parameter, parameter.requires_grad) for parameter in layer.parameters()]
        change(layer)
        for parameter, did in learns:
            parameter.requires_grad_(did)


def _active(layer: Any) -> str | None:
    """The adapter that is on."""
    return None if layer.disable_adapters else str(layer.active_adapters[0])


def head_parts(head: Any) -> tuple[nn.Parameter, nn.Parameter | None, nn.Parameter | None, float]:
    """(weight_VH, down_RH, up_VR, scaling) of an output head: logits = h W^T + (scaling h down^T) up^T.

    Without an adapter, or with it switched off, down and up are None.
    """
    if not _adapted(head):
        return head.weight, None, None, 0.0
    name = _active(head)
    if name is None:
        return head.base_layer.weight, None, None, 0.0
    return head.base_layer.weight, head.lora_A[name].weight, head.lora_B[name].weight, float(head.scaling[name])


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError(NEEDS_PEFT) from error
    return peft
