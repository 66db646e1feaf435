"""Every decoder of the installed transformers: a tiny random one of each, on trees and sequence by sequence."""

from __future__ import annotations

import re
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stepdpo.core.errors import UserError
from stepdpo.models.attention.registry import NAMES, register
from stepdpo.models.compatibility import refuse_sliding_window, refuse_unsupported
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch import TreeBatch

RIGHT = "right"
OURS = next(iter(NAMES.values()))
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
PER_LAYER = {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}
MORE: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dbrx": {"attn_config": {"rope_theta": 1e4}},
    "deepseek_v3": LATENT | {"head_dim": 8, "first_k_dense_replace": 2, "num_key_value_heads": 4},
    "dots1": {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1},
    "gemma3n_text": PER_LAYER | {"num_kv_shared_layers": 0, "layer_types": ["full_attention"] * 2},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "gemma4_text": PER_LAYER,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "minicpm3": LATENT | {"head_dim": 16, "num_key_value_heads": 4},
    "reformer": {"is_decoder": True},
    "youtu": LATENT | {"head_dim": 8, "num_key_value_heads": 4},
}
"""Settings over SMALL, by model type."""
SLACK = 1e-5
"""Of a sum of log-probabilities: what rounding in fp32 leaves, also where a model applies its layers many times."""
GRADIENT_SLACK = 3e-5
"""Of the largest entry of the gradient: of those that apply their layers many times, `hrm_text` comes to 1.7e-5."""
LARGEST = 20_000_000
"""Parameters of what is still computed with."""


def classes() -> dict[str, Any]:
    """Model type -> class of the causal language model."""
    names = {name if isinstance(name, str) else name[0] for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    kinds = [getattr(transformers, name) for name in sorted(names)]
    return {kind.config_class.model_type: kind for kind in kinds}


def verdict(name: str, kind: Any, batch: TreeBatch, sequences: list[list[int]]) -> str:
    """RIGHT, or why it is refused. Raises AssertionError for one that is neither."""
    shape, small = _on_paper(name, kind)
    if isinstance(shape, str):
        return shape
    try:
        refuse_unsupported(shape)
        assert small, "accepted, and no small one could be built"
        assert sum(p.numel() for p in shape.parameters()) < LARGEST, "accepted, and not small"
        refuse_sliding_window(shape.config, batch.input_ids_RL.shape[1])
        off = _off(name, kind, batch, sequences)
    except UserError as error:
        return _reason(name, error)
    _check(off)
    _check_window(name, kind, batch, sequences)
    return RIGHT


def _check_window(name: str, kind: Any, batch: TreeBatch, sequences: list[list[int]]) -> None:
    """A window shorter than the sequences is refused, or does nothing."""
    narrow = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
    try:
        config = config_of(name, kind, **narrow)
        refuse_sliding_window(config, max(map(len, sequences)))
    except (UserError, StrictDataclassClassValidationError):
        return
    _check(_off(name, kind, batch, sequences, **narrow))


def _check(off: tuple[float, float]) -> None:
    logps, gradients = off
    assert logps < SLACK, f"log-probabilities off by {logps:.1e} of their size"
    assert gradients < GRADIENT_SLACK, f"gradients off by {gradients:.1e} of their size"


def _off(name: str, kind: Any, batch: TreeBatch, sequences: list[list[int]], **more: Any) -> tuple[float, float]:
    """How far log-probabilities and gradients of trees are from the stock model's, over their size."""
    ours, theirs = (_built(name, kind, attention, **more) for attention in (OURS, "eager"))
    theirs.load_state_dict(ours.state_dict())
    logps = Scorer(ours, False, lambda parameters: nullcontext())(batch)[0].view(-1)
    expected = _one_by_one(theirs, batch, sequences)
    weights = torch.linspace(-1.0, 2.0, len(expected), dtype=torch.float64)  # every response with one of its own
    for found in (logps, expected):
        (weights * found.double()).sum().backward()
    return _distance(logps, expected), _distance(_gradient(ours), _gradient(theirs))


def _distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def _gradient(model: Any) -> Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([part.flatten() for part in parts])


def _reason(name: str, error: UserError) -> str:
    """In words that follow the model's name, without the names of classes."""
    return re.sub(r" \(.*\)$", "", str(error).removeprefix(f"model: {name} "))


def config_of(name: str, kind: Any, **more: Any) -> Any:
    return kind.config_class(**SMALL | MORE.get(name, {}) | more)


def _on_paper(name: str, kind: Any) -> tuple[Any, bool]:
    """(the model without weights, or why transformers does not give it our attention; whether it is a small one)."""
    why: Exception | None = None
    for small in (True, False):
        try:
            config = config_of(name, kind) if small else kind.config_class(**MORE.get(name, {}))
            config._attn_implementation = register()
            with torch.device("meta"):
                return kind(config), small
        except Exception as error:  # whatever a configuration that we did not foresee comes to
            if OURS in str(error):
                return "has an attention of its own, which cannot read token trees", small
            why = why or error
    try:
        refuse_unsupported(SimpleNamespace(config=kind.config_class(**MORE.get(name, {}))))
    except UserError as error:  # by its configuration alone, where its other parts need packages that are not here
        return _reason(name, error), False
    except AttributeError:
        pass
    raise AssertionError(f"could not be built: {why}")


def _built(name: str, kind: Any, attention: str, **more: Any) -> Any:
    """In double precision, its norms and biases moved from where they start."""
    config = config_of(name, kind, **more)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def _one_by_one(model: Any, batch: TreeBatch, sequences: list[list[int]]) -> Tensor:
    """Sums by response from the stock model's own logits, each sequence alone."""
    found = {}
    for sequence in sequences:
        ids = batch.input_ids_RL[:, sequence]
        logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].double(), -1)
        for place, (source, target) in enumerate(zip(sequence, ids[0, 1:].tolist(), strict=False)):
            found[source, target] = logps[place, target]
    scored = torch.stack([found[pair] for pair in zip(batch.source_T.tolist(), batch.target_T.tolist(), strict=True)])
    return scored.new_zeros(2 * batch.pairs).index_add_(0, batch.owner_E, scored[batch.term_E])
