"""Which matrices are adapted, what an adapted model computes, and what its files give back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.adapter_layers import adapter_off, head_parts, layers
from stepdpo.models.lora import Lora, NoAdapter, targets
from stepdpo.models.merge import adapter_weights, merged
from stepdpo.models.save import _without_adapters, write_model
from stepdpo.training.engine.settings import recompute_activations

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
TOKENS = torch.tensor([[5, 9, 2, 30, 7, 7, 1]])


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_all_linear_leaves_the_head_out(tiny_model: Path, untied_model: Path) -> None:
    for folder in (tiny_model, untied_model):
        model = load(folder)
        assert targets(model, "all-linear", head=False) == LINEAR
        assert targets(model, "all-linear", head=True) == sorted([*LINEAR, "lm_head"])
        assert targets(model, ["v_proj", "q_proj"], head=False) == ["q_proj", "v_proj"]
        assert targets(model, ["layers.1.mlp.up_proj"], head=True) == ["layers.1.mlp.up_proj", "lm_head"]


def test_targets_that_are_not_there(tiny_model: Path) -> None:
    model = load(tiny_model)
    with pytest.raises(UserError, match=r"adapter.targets: .* no linear layer 'q_prj'; did you mean 'q_proj'"):
        targets(model, ["q_prj", "v_proj"], head=False)
    with pytest.raises(UserError, match="known: down_proj, gate_proj"):
        targets(model, ["xyz"], head=False)
    with pytest.raises(UserError, match=r"adapter\.head=true"):
        targets(model, ["lm_head"], head=False)
    with pytest.raises(UserError, match="'proj'"):
        targets(model, ["proj"], head=False)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"targets": []}, {"targets": 3}, {"targets": [3]}])
def test_wrong_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Lora(**wrong)


def test_without_peft_it_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'stepdpo\[lora\]'"):
        Lora().attach(load(tiny_model))


def test_no_adapter_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model)
    assert NoAdapter().attach(model) is model
    assert all(p.requires_grad for p in model.parameters())
    weight_VH, down_RH, up_VR, _ = head_parts(model.lm_head)
    assert weight_VH is model.lm_head.weight
    assert down_RH is None
    assert up_VR is None
    with adapter_off(model):
        before = logits(model)
    write_model(model, model.state_dict(), tmp_path)
    assert torch.equal(logits(load(tmp_path)), before)
    assert not (tmp_path / "adapter").exists()


def test_merging_is_w_plus_s_b_a() -> None:
    """By hand: s = 2, B A = [[1], [2]] [[3, 4]] = [[3, 4], [6, 8]]."""
    state = {
        "a.q.base_layer.weight": torch.ones(2, 2),
        "a.q.base_layer.bias": torch.zeros(2),
        "a.q.lora_A.default.weight": torch.tensor([[3.0, 4.0]]),
        "a.q.lora_B.default.weight": torch.tensor([[1.0], [2.0]]),
        "embed.weight": torch.zeros(2, 2),
    }
    whole = merged(state, {"a.q": 2.0}, tied=None)
    assert sorted(whole) == ["a.q.bias", "a.q.weight", "embed.weight"]
    assert whole["a.q.weight"].tolist() == [[7.0, 9.0], [13.0, 17.0]]
    assert state["a.q.base_layer.weight"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert sorted(adapter_weights(state)) == [
        "base_model.model.a.q.lora_A.weight", "base_model.model.a.q.lora_B.weight",
    ]  # fmt: skip


def test_a_tied_head_is_merged_apart_from_its_embeddings() -> None:
    """With the shared matrix once in the state dict (ZeRO 3 lists parameters), or twice."""
    adapter = {"head.lora_A.default.weight": torch.ones(1, 2), "head.lora_B.default.weight": torch.ones(3, 1)}
    for shared in ({}, {"head.base_layer.weight": torch.zeros(3, 2)}):
        whole = merged({"embed.weight": torch.zeros(3, 2), **shared, **adapter}, {"head": 0.5}, tied="embed.weight")
        assert whole["embed.weight"].eq(0.0).all()
        assert whole["head.weight"].eq(0.5).all()


@pytest.mark.parametrize("untie", [False, True])
def test_the_bare_model_takes_any_weights(tiny_model: Path, tmp_path: Path, untie: bool) -> None:
    """Under its own class and configuration; an untied head keeps a matrix of its own."""
    model = load(tiny_model)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    if untie:
        weights["lm_head.weight"] *= 2
    before = logits(model) * (2 if untie else 1)
    _without_adapters(model, untie).save_pretrained(tmp_path, state_dict=weights)
    torch.testing.assert_close(logits(load(tmp_path)), before)
    assert load(tmp_path).config.tie_word_embeddings == (not untie)
    assert model.config.tie_word_embeddings


def adapted(folder: Path, **settings: Any) -> Any:
    """A model with an adapter that does something: B is no longer zero."""
    pytest.importorskip("peft")
    model = Lora(rank=4, alpha=8, **settings).attach(load(folder)).eval()
    torch.manual_seed(1)
    for layer in layers(model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    return model


@pytest.mark.parametrize("head", [False, True])
def test_policy_and_reference_begin_as_one(tiny_model: Path, head: bool) -> None:
    pytest.importorskip("peft")
    base = load(tiny_model).eval()
    model = Lora(head=head).attach(load(tiny_model)).eval()
    assert torch.equal(logits(model), logits(base))
    assert type(model) is type(base)
    assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
    assert len(layers(model)) == 2 * len(LINEAR) + head
    again = Lora(head=head).attach(load(tiny_model))
    other = Lora(head=head, seed=1).attach(load(tiny_model))
    weights = [m.model.layers[0].mlp.up_proj.lora_A["default"].weight for m in (model, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_attaching_leaves_the_random_state(tiny_model: Path) -> None:
    pytest.importorskip("peft")
    model = load(tiny_model)
    before = torch.get_rng_state()
    Lora().attach(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_adapters_of_bfloat16_models(tiny_model: Path) -> None:
    pytest.importorskip("peft")
    model = Lora(head=True).attach(load(tiny_model).to(torch.bfloat16))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("head", [False, True])
def test_switched_off_it_is_the_base(tiny_model: Path, head: bool) -> None:
    model, base = adapted(tiny_model, head=head), load(tiny_model).eval()
    on = logits(model)
    assert not torch.allclose(on, logits(base), atol=1e-3)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    with adapter_off(model):
        assert torch.equal(logits(model), logits(base))
        assert head_parts(model.lm_head)[1] is None
    assert torch.equal(logits(model), on)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    with pytest.raises(RuntimeError, match="x"), adapter_off(model):
        raise RuntimeError("x")
    assert torch.equal(logits(model), on)


def test_a_reference_pass_before_a_checkpointed_one_changes_no_gradient(tiny_model: Path) -> None:
    gradients = []
    for first in (False, True):
        model = adapted(tiny_model).train()
        recompute_activations(model)
        if first:
            with torch.no_grad(), adapter_off(model):
                model(input_ids=TOKENS)
        model(input_ids=TOKENS).logits.logsumexp(-1).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(g is not None and torch.equal(g, h) for g, h in zip(*gradients, strict=True))


@pytest.mark.parametrize("rslora", [False, True])
def test_the_parts_of_a_head_are_its_forward(tiny_model: Path, rslora: bool) -> None:
    model = adapted(tiny_model, head=True, rslora=rslora)
    weight_VH, down_RH, up_VR, scaling = head_parts(model.lm_head)
    assert down_RH is not None
    assert up_VR is not None
    assert scaling == (8 / math.sqrt(4) if rslora else 8 / 4)
    assert weight_VH is model.get_input_embeddings().weight
    hidden_TH = torch.randn(5, weight_VH.shape[1], generator=torch.Generator().manual_seed(0))
    ours_TV = hidden_TH @ weight_VH.T + (scaling * hidden_TH @ down_RH.T) @ up_VR.T
    torch.testing.assert_close(ours_TV, model.lm_head(hidden_TH), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks by the old name
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")  # peft's, when it opens a tied head's adapter
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_files_open_whole_and_as_an_adapter(
    tiny_model: Path, untied_model: Path, tmp_path: Path, tied: bool, head: bool
) -> None:
    """With transformers alone, and with peft on the base; the adapter's configuration names its base."""
    peft = pytest.importorskip("peft")
    folder = tiny_model if tied else untied_model
    model = adapted(folder, head=head)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    write_model(model, weights, tmp_path)
    torch.testing.assert_close(logits(load(tmp_path).eval()), logits(model), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] == (tied and not head)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folder)
    assert settings["target_modules"] == sorted(settings["target_modules"])  # peft has a set: no order of its own
    opened = peft.PeftModel.from_pretrained(load(folder), tmp_path / "adapter").eval()
    assert torch.equal(logits(opened), logits(model))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json"}
