"""Packed equals padded: loss, metrics and every parameter's gradient, for each loss, level and architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny, twins
from support.twins import Setting, close, ours, twin
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO, Normalise
from stepdpo.algo.dpo import Form as DPOForm
from stepdpo.algo.dpop import DPOP
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.orpo import ORPO
from stepdpo.algo.sft import SFT
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.tdpo import TDPO, Form
from stepdpo.algo.wpo import WPO
from stepdpo.data.level import AppendEos, Instance, Prefix, Step

LOSSES = {
    "dpo": (DPO(), twins.dpo),
    "tdpo1": (TDPO(form=Form.tdpo1), twins.tdpo1),
    "tdpo2": (TDPO(form=Form.tdpo2), twins.tdpo2),
    "sft": (SFT(), twins.sft),
    "kto": (KTO(), twins.kto),
    "nca": (NCA(), twins.nca),
    "dpop": (DPOP(penalty=5.0), twins.dpop),
    "simpo": (SimPO(), twins.simpo),
    "cpo": (CPO(), twins.cpo),
    "orpo": (ORPO(), twins.orpo),
    "wpo": (WPO(), twins.wpo),
    "irpo": (DPO(sft_weight=1.0), lambda chosen, *rest: twins.dpo(chosen, *rest) - chosen.mean),
    "ipo-mean": (
        DPO(form=DPOForm.ipo, normalise=Normalise.mean),
        lambda chosen, rejected, *_: (chosen.mean_logratio - rejected.mean_logratio - 1 / 0.8) ** 2,
    ),
}
LEVELS = {
    "step": Step(),
    "step-response": Step(prefix=Prefix.response),
    "instance": Instance(),
    "instance-prompt": Instance(prefix=Prefix.prompt),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", LOSSES)
def test_packed_equals_padded(name: str, level: str, tmp_path: Path) -> None:
    algo, formula = LOSSES[name]
    setting = Setting(algo, LEVELS[level])
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, formula)
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert metrics["logps/chosen"] == pytest.approx(float(expected.chosen.logps.mean()), rel=1e-6)
    if name != "sft":
        assert metrics["logps/rejected"] == pytest.approx(float(expected.rejected.logps.mean()), rel=1e-6)
    close(gradient, expected.gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_in_single_precision_too(name: str, tmp_path: Path) -> None:
    """To the rounding of sums of some hundred nats."""
    algo, formula = LOSSES[name]
    setting = Setting(algo, Instance(), dtype=torch.float32)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, formula)
    assert metrics["loss"] == pytest.approx(expected.loss, rel=5e-5)
    close(gradient, expected.gradient, rtol=1e-4)


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.DEEPSEEK], ids=lambda t: t.name)
@pytest.mark.parametrize("eos", AppendEos)
def test_for_other_templates_and_endings(template: Any, eos: AppendEos, tmp_path: Path) -> None:
    setting = Setting(TDPO(), Instance(append_eos=eos), template=template)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, twins.tdpo2)
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    close(gradient, expected.gradient)


def test_kl_metrics_are_the_twins(tmp_path: Path) -> None:
    setting = Setting(TDPO(), Instance())
    metrics, _ = ours(setting, tmp_path)
    expected = twin(setting, twins.tdpo2)
    chosen, rejected = expected.chosen, expected.rejected
    assert float(chosen.kl.min()) > 0
    assert metrics["kl/chosen"] == pytest.approx(float(chosen.kl.mean()), rel=1e-4)
    assert metrics["kl/margin"] == pytest.approx(float((chosen.kl - rejected.kl).mean()), rel=1e-3, abs=1e-4)
    assert metrics["rewards/chosen"] == pytest.approx(float(0.4 * (chosen.logratio + chosen.kl).mean()), rel=1e-4)
    assert metrics["rewards/rejected"] == pytest.approx(float(0.4 * (rejected.logratio + rejected.kl).mean()), rel=1e-4)


@pytest.mark.parametrize("algo", [DPO(sft_weight=0.5), SimPO(), SFT()], ids=["irpo", "simpo", "sft"])
def test_means_over_tokens_and_who_fell_are_the_twins(algo: Any, tmp_path: Path) -> None:
    """Means of each pair's own means, not of all tokens; a rejected side or a reference only where the loss looks."""
    setting = Setting(algo, Instance())
    metrics, _ = ours(setting, tmp_path)
    seen = twin(setting, twins.dpo)
    chosen, rejected = seen.chosen, seen.rejected
    assert metrics["logps/chosen_per_token"] == pytest.approx(float(chosen.mean.mean()), rel=1e-6)
    assert metrics["logps/chosen_per_token"] != pytest.approx(float(chosen.logps.sum() / chosen.tokens.sum()), rel=1e-4)
    if "rejected" in algo.needs:
        assert metrics["logps/rejected_per_token"] == pytest.approx(float(rejected.mean.mean()), rel=1e-6)
    assert ("logps/rejected_per_token" in metrics) is ("rejected" in algo.needs)
    if "reference" in algo.needs:
        fell = (chosen.logratio < 0).double().mean()
        assert 0 < float(fell) < 1
        assert metrics["chosen_fell"] == pytest.approx(float(fell))
        assert metrics["logratios/chosen"] == pytest.approx(float(chosen.logratio.mean()), rel=1e-5)
        assert metrics["nll"] == pytest.approx(-float(chosen.mean.mean()), rel=1e-6)
    assert ("chosen_fell" in metrics) is ("reference" in algo.needs)


def test_the_weight_is_the_twins(tmp_path: Path) -> None:
    """WPO's, from the sums of squares of whole distributions; not all pairs may weigh alike."""
    setting = Setting(WPO(), Instance())
    metrics, _ = ours(setting, tmp_path)
    expected = twin(setting, twins.wpo)
    sides = (expected.chosen, expected.rejected)
    weight = sum((side.logps - side.collision) / side.tokens for side in sides).exp().clamp(max=1)
    assert metrics["weight"] == pytest.approx(float(weight.mean()), rel=1e-6)
    assert float(weight.std()) > 1e-3


def llama(attention: str) -> Any:
    return build(LlamaConfig, LlamaForCausalLM, attention)


def mistral(attention: str) -> Any:
    """Its sliding window of 4,096 is wider than anything here."""
    return build(MistralConfig, MistralForCausalLM, attention)


def qwen3(attention: str) -> Any:
    return build(Qwen3Config, Qwen3ForCausalLM, attention, head_dim=8)


def granite(attention: str) -> Any:
    """It scales its attention in its own way."""
    return build(GraniteConfig, GraniteForCausalLM, attention, attention_multiplier=0.9)


def scaled(attention: str) -> Any:
    """It divides its logits."""
    return build(GraniteConfig, GraniteForCausalLM, attention, logits_scaling=3.0)


def cohere(attention: str) -> Any:
    """It multiplies its logits, and has attention and feed-forward side by side."""
    return build(CohereConfig, CohereForCausalLM, attention, logit_scale=0.3)


def gemma2(attention: str) -> Any:
    """It caps its logits and its attention; every second layer has a window, wider than anything here."""
    return build(
        Gemma2Config, Gemma2ForCausalLM, attention, head_dim=8, final_logit_softcapping=4.0,
        attn_logit_softcapping=2.0, query_pre_attn_scalar=8,
    )  # fmt: skip


def gemma3(attention: str) -> Any:
    """Layers of two kinds with two rotary bases."""
    return build(Gemma3TextConfig, Gemma3ForCausalLM, attention, head_dim=8, query_pre_attn_scalar=8)


def untied(attention: str) -> Any:
    return tiny.model(attention, tied=False)


def build(config_class: Any, model_class: Any, attention: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tiny.tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tiny.tokenizer().eos_token_id,
        **more,
    )
    config._attn_implementation = attention
    return model_class(config).train()


@pytest.mark.parametrize("make", [scaled, cohere, untied])
def test_collision_probabilities_of_other_heads(make: Any, tmp_path: Path) -> None:
    setting = Setting(WPO(beta=0.4), Step(), make=make)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, lambda *sides: twins.wpo(*sides, beta=0.4))
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    close(gradient, expected.gradient)


@pytest.mark.parametrize("make", [llama, mistral, qwen3, granite, scaled, cohere, gemma3, untied])
def test_for_other_architectures(make: Any, tmp_path: Path) -> None:
    setting = Setting(TDPO(), Instance(), make=make)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, twins.tdpo2)
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    close(gradient, expected.gradient)


def test_for_caps_on_logits_and_attention(tmp_path: Path) -> None:
    """The stock model caps its attention in eager alone, whose softmax is in single precision."""
    setting = Setting(TDPO(), Instance(), make=gemma2)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, twins.tdpo2, attention="eager")
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-5)
    close(gradient, expected.gradient, rtol=1e-4)


def test_for_eager_attention(tmp_path: Path) -> None:
    """The twin's own attention is no shared assumption: the plain one gives the same."""
    setting = Setting(DPO(), Step())
    close(ours(setting, tmp_path)[1], twin(setting, twins.dpo, attention="eager").gradient)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """A wrong beta, and a policy that moved elsewhere, are both seen."""
    setting = Setting(DPO(), Step())
    _, gradient = ours(setting, tmp_path)
    with pytest.raises(AssertionError, match="off"):
        close(gradient, twin(setting, lambda *s: twins.dpo(*s, beta=0.4001)).gradient)
    with pytest.raises(AssertionError, match="off"):
        close(gradient, twin(Setting(DPO(), Step(), move=0.0201), twins.dpo).gradient)
