"""Which models can be trained on trees: everything else is refused by name, before it can be silently wrong."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support import tiny
from torch import nn

from stepdpo.core.errors import UserError
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.compatibility import refuse_sliding_window, refuse_unsupported
from stepdpo.models.load import Fresh, Pretrained
from stepdpo.models.scorer import Scorer

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


def score(name: str, attention: Attention = Attention.runs, causal: str = "CausalLM", **more: Any) -> Scorer:
    config = getattr(transformers, f"{name}Config")(**SMALL | more)
    config._attn_implementation = register(attention)
    model = getattr(transformers, f"{name.removesuffix('Text')}For{causal}")(config)
    return Scorer(model, False, lambda parameters: nullcontext())


PLAIN = ["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Olmo2", "Olmo3", "Phi3", "SmolLM3", "Granite"]
PLAIN += ["Gemma3Text", "SeedOss", "Glm4", "GPTNeoX", "Starcoder2"]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_transformers_are_welcome(name: str) -> None:
    """SeedOssMLP only looks like a state-space model."""
    assert isinstance(score(name), nn.Module)


LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Mixtral", {"num_local_experts": 2, "num_experts_per_tok": 1}),
        ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 8}),
        ("Qwen3Moe", EXPERTS),
        ("GraniteMoe", {"num_local_experts": 2, "num_experts_per_tok": 1}),
        ("Olmoe", EXPERTS),
        ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}),
        ("DeepseekV3", EXPERTS | LATENT | {"n_routed_experts": 8, "first_k_dense_replace": 1, "head_dim": 8}),
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
    with pytest.raises(UserError, match="phi has a bias"):
        score("Phi")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Bloom", {"n_head": 2, "n_layer": 2}),
        ("Mpt", {"d_model": 16, "n_heads": 2, "n_layers": 1}),
        ("Falcon", {"alibi": True}),
        ("StableLm", {}),
        ("Nemotron", {}),
        ("GPTJ", {"n_embd": 16, "n_head": 2, "n_layer": 1, "rotary_dim": 4}),
    ],
)
def test_models_with_an_attention_of_their_own(name: str, settings: dict[str, Any]) -> None:
    """They would never ask for the tree, and read across branches."""
    with pytest.raises((UserError, ValueError, KeyError), match=r"(?i)attention|stepdpo_tree"):
        score(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Mamba", {"state_size": 4}),
        ("FalconMamba", {"state_size": 4}),
        ("RecurrentGemma", {"lru_width": 16, "block_types": ["recurrent", "attention"], "head_dim": 8}),
        ("Rwkv", {"attention_hidden_size": 16}),
        ("Lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("Qwen3_5Text", {"head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
                         "linear_key_head_dim": 8, "linear_value_head_dim": 8}),
        ("FalconH1", {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4,
                      "mamba_chunk_size": 4, "head_dim": 8}),
    ],
)  # fmt: skip
def test_layers_that_carry_a_state(name: str, settings: dict[str, Any]) -> None:
    """A recurrent layer or a convolution carries one branch into the next."""
    if not hasattr(transformers, f"{name}Config"):
        pytest.skip("not in this release of transformers")
    with pytest.raises(UserError, match=f"model: {SAID[name]} has layers that cannot read token trees"):
        score(name, **settings)


SAID = {
    "Mamba": "mamba",
    "FalconMamba": "falcon_mamba",
    "RecurrentGemma": "recurrent_gemma",
    "Rwkv": "rwkv",
    "Lfm2": "lfm2",
    "Qwen3_5Text": "qwen3_5_text",
    "FalconH1": "falcon_h1",
}


def test_hybrid_layers_by_their_kind() -> None:
    model = tiny.model(register())
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(UserError, match="linear_attention"):
        Scorer(model, False, lambda parameters: nullcontext())


def test_models_that_look_ahead() -> None:
    with pytest.raises(UserError, match="gemma3_text looks ahead"):
        score("Gemma3Text", head_dim=8, use_bidirectional_attention=True)


def test_encoders_and_decoders() -> None:
    part = SMALL | {"head_dim": 8}
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, vocab_size=64)
    model = transformers.T5GemmaForConditionalGeneration(config)
    with pytest.raises(UserError, match="t5gemma is an encoder with a decoder"):
        refuse_unsupported(model)


def test_models_of_images_and_text() -> None:
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision |= {"image_size": 28, "patch_size": 14}
    text = SMALL | {"head_dim": 8}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config)
    with pytest.raises(UserError, match="gemma3 wraps a language model"):
        refuse_unsupported(model)


def test_positions_by_bias() -> None:
    """As code from a model repository may have them."""
    model = tiny.model(register())
    model.config.alibi = True
    with pytest.raises(UserError, match="qwen2 has positions by bias"):
        refuse_unsupported(model)


def test_attention_sinks() -> None:
    """They are one more place for attention to go, which none of our backends has."""
    model = tiny.model(register())
    model.model.layers[0].self_attn.sinks = nn.Parameter(torch.zeros(4))
    with pytest.raises(UserError, match="qwen2 has attention sinks"):
        refuse_unsupported(model)


def test_heads_too_small_for_flex() -> None:
    with pytest.raises(UserError, match=r"heads of 8 numbers.*attention=runs"):
        score("Qwen2", Attention.flex)
    assert isinstance(score("Qwen2", Attention.flex, hidden_size=32), nn.Module)


# Sliding windows


def window(name: str, **more: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**SMALL | more)


@pytest.mark.parametrize(
    "config",
    [
        window("Mistral", sliding_window=100),
        window("Qwen2", use_sliding_window=True, sliding_window=100, max_window_layers=1),
        window("Phi3", sliding_window=100),
        window("Gemma2", sliding_window=100),
        window("Gemma3Text", sliding_window=100, num_hidden_layers=6),
    ],
    ids=lambda c: c.model_type,
)
def test_a_window_narrower_than_the_longest_path(config: Any) -> None:
    refuse_sliding_window(config, longest=100)
    with pytest.raises(UserError, match=rf"{config.model_type}.*100 tokens \(sliding_window\).*max_length=101"):
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


def test_a_saved_model_that_cannot_is_refused_when_it_opens(tmp_path: Path) -> None:
    """GPT-J looks its attention up in a list of its own; StableLM asks for no backend."""
    for name, more in (("GPTJ", {"n_embd": 16, "n_head": 2, "n_layer": 1, "rotary_dim": 4}), ("StableLm", {})):
        folder = tmp_path / name
        config = getattr(transformers, f"{name}Config")(**SMALL | more)
        getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
        with pytest.raises(UserError, match=r"(?i)attention"):
            Scorer(Pretrained(path=str(folder)).model(register(), torch.float32), False, lambda p: nullcontext())
