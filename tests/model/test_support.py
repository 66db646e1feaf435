"""Which models can be trained on trees: everything else is refused by name, before it can be silently wrong."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from torch import nn

from stepdpo.errors import UserError
from stepdpo.model.attention import register
from stepdpo.model.forward import Scorer
from stepdpo.model.load import Fresh, Pretrained
from stepdpo.model.support import refuse_sliding_window

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}


def score(name: str, **more: Any) -> Scorer:
    config = getattr(transformers, f"{name}Config")(**SMALL | more)
    config._attn_implementation = register()
    return Scorer(getattr(transformers, f"{name}ForCausalLM")(config), False, lambda parameters: nullcontext())


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Olmo2", "Phi3"])
def test_plain_transformers_are_welcome(name: str) -> None:
    assert isinstance(score(name), nn.Module)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Mixtral", {"num_local_experts": 2, "num_experts_per_tok": 1}),
        ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 8}),
        ("Qwen3Moe", EXPERTS),
        ("GraniteMoe", {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ],
)
def test_mixtures_of_experts(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="mixture of experts"):
        score(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "form"),
    [
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 20.0}, (1.0, 20.0)),
        ("Cohere", {"logit_scale": 0.5}, (0.5, None)),
        ("Granite", {"logits_scaling": 8.0}, (0.125, None)),
        ("Llama", {}, (1.0, None)),
    ],
)
def test_logits_that_are_scaled_or_capped(
    name: str, settings: dict[str, Any], form: tuple[float, float | None]
) -> None:
    scorer = score(name, **settings)
    assert (scorer.scale, scorer.cap) == form


def test_a_head_with_a_bias() -> None:
    with pytest.raises(UserError, match="phi models have a bias"):
        score("Phi")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Bloom", {"n_head": 2, "n_layer": 2}), ("StableLm", {}), ("Mamba", {"state_size": 4})],
)
def test_models_with_an_attention_of_their_own(name: str, settings: dict[str, Any]) -> None:
    """They would never ask for the tree, and read across branches."""
    with pytest.raises((UserError, ValueError), match=r"(?i)attention|stepdpo_tree"):
        score(name, **settings)


def test_hybrid_layers() -> None:
    """A recurrent layer carries one branch into the next."""
    model = tiny.model(register())
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(UserError, match="linear_attention"):
        Scorer(model, False, lambda parameters: nullcontext())


# Sliding windows


def window(name: str, **more: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**SMALL | more)


@pytest.mark.parametrize(
    "config",
    [
        window("Mistral", sliding_window=100),
        window("Qwen2", use_sliding_window=True, sliding_window=100, max_window_layers=1),
        window("Phi3", sliding_window=100),
    ],
    ids=lambda c: c.model_type,
)
def test_a_window_narrower_than_the_longest_path(config: Any) -> None:
    refuse_sliding_window(config, longest=100)
    with pytest.raises(UserError, match=r"max_length=101 is longer.*window of 100"):
        refuse_sliding_window(config, longest=101)


@pytest.mark.parametrize(
    "config",
    [window("Llama"), window("Mistral", sliding_window=None), window("Qwen2", sliding_window=100)],
    ids=lambda c: c.model_type,
)
def test_without_a_window_any_length_will_do(config: Any) -> None:
    """Qwen2 names a window that it does not use."""
    refuse_sliding_window(config, longest=100_000)


# Opening


def test_fresh_is_its_seed() -> None:
    models = [Fresh(hidden_size=16, layers=1, heads=2, intermediate_size=16, seed=s) for s in (0, 0, 1)]
    weights = [next(m.model(register(), torch.float32).parameters()) for m in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_saved_model_opens_without_dropout(tmp_path: Path) -> None:
    model = tiny.model("sdpa")
    model.config.attention_dropout = 0.3
    model.save_pretrained(tmp_path)
    opened = Pretrained(path=str(tmp_path)).model(register(), torch.float32)
    assert opened.config.attention_dropout == 0.0
    assert opened.config._attn_implementation == register()
    for mine, theirs in zip(opened.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        Pretrained(path=str(tmp_path)).model(register(), torch.float32)
    with pytest.raises(UserError, match=r"no config\.json"):
        Pretrained(path=str(tmp_path)).tokenizer()


def test_code_from_a_repository_needs_a_pinned_revision() -> None:
    with pytest.raises(ValueError, match="revision"):
        Pretrained(path="somebody/model", trust_remote_code=True)
    assert Pretrained(path="somebody/model", trust_remote_code=True, revision="abc").revision == "abc"
