"""NF4: the numbers that are stored, what is left alone, and what comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import save_model
from torch import Tensor, nn

from stepdpo.core.errors import UserError
from stepdpo.models.adapter_layers import adapter_off, layers
from stepdpo.models.lora import Lora
from stepdpo.models.quantise import NEEDS_BITSANDBYTES, Nf4, dequantise, quantised, told
from stepdpo.models.save import write_model
from stepdpo.models.start_adapter import BASE

CPU = torch.device("cpu")
TOKENS = torch.tensor([[5, 9, 2, 30, 7, 7, 1]])
"""Too few for sums: each is held to the bound by itself."""
LEVELS = torch.tensor([
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
], dtype=torch.float64)  # fmt: skip
"""The sixteen numbers of the paper's appendix: quantiles of the normal distribution, with an exact zero."""


def load(folder: Path, dtype: Any = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def logps(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.float().log_softmax(-1)


def of_the_text(model: Any) -> Tensor:
    """Log-probabilities of the tokens that are there."""
    return logps(model)[0, :-1].gather(-1, TOKENS[0, 1:, None])


def in_4_bits(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'stepdpo[qlora]'")
    model = load(folder, dtype)
    Nf4(**settings).quantise(model, CPU)
    return model


def adapted(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """With an adapter that does something: B is no longer zero."""
    model = in_4_bits(folder, dtype)
    model = Lora(rank=4, alpha=8, base=Nf4()).attach(model).eval()
    torch.manual_seed(1)
    for layer in layers(model).values():
        nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
    return model


@pytest.fixture(scope="module")
def untied_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("untied"), tied=False, hidden=64)


def test_without_bitsandbytes_it_is_named(blocks_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"pip install 'stepdpo\[qlora\]'"):
        Nf4().quantise(load(blocks_model), CPU)
    assert "stepdpo[qlora]" in NEEDS_BITSANDBYTES


def test_every_block_is_its_largest_number_times_a_level(blocks_model: Path) -> None:
    """By hand, in double precision: each number divided by the largest of its block of 64 goes to the nearest level."""
    model, plain = in_4_bits(blocks_model, double=False), load(blocks_model)
    for name, layer in quantised(model).items():
        blocks = plain.get_submodule(name).weight.detach().double().view(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        nearest = (blocks / scale).unsqueeze(-1).sub(LEVELS).abs().argmin(-1)
        torch.testing.assert_close(
            dequantise(layer).double().view(-1, 64), LEVELS[nearest] * scale, rtol=1e-5, atol=1e-7
        )


def test_double_quantisation_moves_the_scales_by_a_little(blocks_model: Path) -> None:
    """8 bits for a scale: within one part in a hundred of the largest, and fewer bytes."""
    one, two = (quantised(in_4_bits(blocks_model, double=double)) for double in (False, True))
    for name in one:
        once, twice = dequantise(one[name]), dequantise(two[name])
        assert not torch.equal(once, twice)
        assert (once - twice).abs().max() <= once.abs().max() / 100
        assert two[name].weight.quant_state.absmax.dtype == torch.uint8


@pytest.mark.parametrize("tied", [True, False])
def test_head_embeddings_and_norms_are_left_alone(blocks_model: Path, untied_blocks: Path, tied: bool) -> None:
    folder = blocks_model if tied else untied_blocks
    model, plain = in_4_bits(folder), load(folder)
    linear = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    assert set(quantised(model)) == linear
    stored = {f"{name}.weight" for name in linear}
    for name, value in plain.state_dict().items():
        assert (name in stored) == (model.state_dict()[name].dtype == torch.uint8)
        assert name in stored or torch.equal(model.state_dict()[name], value), name
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_rows_that_are_no_whole_blocks_stay_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    """Rows of 32 and, in `down_proj`, of 64 numbers; without any of those there is nothing to quantise."""
    assert set(quantised(in_4_bits(tiny_model))) == {f"model.layers.{n}.mlp.down_proj" for n in (0, 1)}
    with pytest.raises(UserError, match="rows of a multiple of 64"):
        in_4_bits(save_model(tmp_path, tied=True, hidden=16))


def test_the_random_state_is_left_alone(blocks_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    before = torch.get_rng_state()
    in_4_bits(blocks_model)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_quantised_is_not_quantised_again(blocks_model: Path) -> None:
    with pytest.raises(UserError, match="quantised already"):
        Nf4().quantise(in_4_bits(blocks_model), CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_in_float32_and_start_as_nothing(blocks_model: Path, dtype: torch.dtype) -> None:
    plain = logps(in_4_bits(blocks_model, dtype))
    model = Lora(head=True, base=Nf4()).attach(in_4_bits(blocks_model, dtype)).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert len(trained) == 2 * (len(quantised(model)) + 1)
    assert torch.equal(logps(model), plain)


def test_switched_off_it_is_the_dequantised_base(blocks_model: Path) -> None:
    """Not the original one."""
    model, base = adapted(blocks_model), load(blocks_model)
    with adapter_off(model):
        off = logps(model)
    assert torch.equal(off, logps(in_4_bits(blocks_model)))
    for name, layer in quantised(model).items():
        base.get_submodule(name.removesuffix(".base_layer")).weight.data.copy_(dequantise(layer))
    torch.testing.assert_close(logps(base), off, rtol=1e-5, atol=1e-5)
    assert (off - logps(load(blocks_model))).abs().max() > 1e-3


@pytest.mark.parametrize(("saved", "nats"), [(None, 1e-4), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_model_is_the_trained_one(
    blocks_model: Path, untied_blocks: Path, tmp_path: Path, tied: bool, saved: torch.dtype | None, nats: float
) -> None:
    """Both computed in float32, as the passes of a model in 16 bits differ by more; the base has numbers of 16 bits."""
    folder = blocks_model if tied else untied_blocks
    base = load(folder, torch.bfloat16).float()
    base.save_pretrained(tmp_path / "base")
    model = adapted(tmp_path / "base")
    write_model(model, model.state_dict(), tmp_path / "merged", saved)
    assert load(tmp_path / "merged", "auto").dtype == (saved or torch.float32)
    found = load(tmp_path / "merged")
    assert not quantised(found)
    assert (of_the_text(found) - of_the_text(model)).abs().max() < nats
    assert (of_the_text(found) - of_the_text(base)).abs().max() > 5 * nats


def test_merging_adds_in_float32(blocks_model: Path, tmp_path: Path) -> None:
    """W + s B A by hand, in the format that is asked for, from a base that computes in bfloat16."""
    model = adapted(blocks_model, torch.bfloat16)
    write_model(model, model.state_dict(), tmp_path, torch.float32)
    found = load(tmp_path).state_dict()
    for name, layer in layers(model).items():
        update = 2.0 * layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
        wanted = dequantise(layer.base_layer).double() + update
        torch.testing.assert_close(found[f"{name}.weight"].double(), wanted, rtol=1e-5, atol=1e-6)


def test_merging_into_the_original_is_another_model(blocks_model: Path, tmp_path: Path) -> None:
    """W_o + s B A by hand: what is saved differs from the trained model by what quantising took away."""
    model, plain = adapted(blocks_model), load(blocks_model)
    write_model(model, model.state_dict(), tmp_path, original=plain.state_dict())
    found = load(tmp_path)
    for name, layer in layers(model).items():
        update = 2.0 * layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
        wanted = plain.get_submodule(name).weight.double() + update
        torch.testing.assert_close(found.get_submodule(name).weight.double(), wanted, rtol=1e-5, atol=1e-6)
    assert (of_the_text(found) - of_the_text(model)).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore")  # of transformers and peft, about a CPU and old names
def test_the_adapter_opens_on_a_base_that_transformers_quantised(blocks_model: Path, tmp_path: Path) -> None:
    """By the words that are kept with it: the same function as the one that was trained."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    peft = pytest.importorskip("peft")
    model = adapted(blocks_model)
    kept = told(Nf4().key(torch.float32), "sha")
    write_model(model, model.state_dict(), tmp_path, told=kept)
    written = json.loads((tmp_path / "adapter" / BASE).read_text())
    assert written == kept
    assert (written["type"], written["block"], written["double"], written["weights"]) == ("nf4", 64, True, "sha")
    config = BitsAndBytesConfig(**written["quantization_config"])
    base = AutoModelForCausalLM.from_pretrained(blocks_model, quantization_config=config, dtype=torch.float32)
    for layer in quantised(base).values():
        layer.support_avx512bf16_for_cpu = False  # else it computes in bfloat16 whatever was asked for
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logps(opened), logps(model), rtol=1e-5, atol=1e-5)
