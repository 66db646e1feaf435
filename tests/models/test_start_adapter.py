"""An adapter to start from: what is read, what is refused, and the frozen copy of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.adapter_layers import adapter_off, head_parts, hold_start, layers
from stepdpo.models.lora import Lora
from stepdpo.models.save import write_model
from stepdpo.models.scorer import Scorer
from stepdpo.models.start_adapter import doubt, look, read

TOKENS = torch.tensor([[5, 9, 2, 30, 7, 7, 1]])
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
UP = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def moved(model: Any, seed: int = 1) -> Any:
    """Its trained adapter away from where it is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers(model).values():
            weight = layer.lora_B["default"].weight
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def earlier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose adapter does something, on the head too."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("earlier")
    model = moved(Lora(rank=4, alpha=8, targets=["q_proj", "up_proj"], head=True, rslora=True).attach(load(tiny_model)))
    write_model(model, model.state_dict(), folder, told={"weights": "these"})
    return folder


@pytest.fixture
def folder(earlier: Path, tmp_path: Path) -> Path:
    """Its adapter, to be spoilt."""
    return Path(shutil.copytree(earlier / "adapter", tmp_path / "start"))


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
def test_it_goes_on_where_the_other_one_ended(tiny_model: Path, earlier: Path, tmp_path: Path) -> None:
    """The same function as the merged model; the shape is the folder's; what is saved is again the whole adapter."""
    model = Lora(start=str(earlier / "adapter")).attach(load(tiny_model))
    torch.testing.assert_close(logits(model), logits(load(earlier)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(model), logits(load(tiny_model)), atol=1e-2)
    layer = layers(model)["model.layers.0.mlp.up_proj"]
    assert (layer.lora_A["default"].weight.shape[0], layer.scaling["default"]) == (4, 8 / 4**0.5)
    assert len(layers(model)) == 2 * 2 + 1
    assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
    write_model(moved(model, 2), model.state_dict(), tmp_path)
    torch.testing.assert_close(logits(load(tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    one, other = (json.loads((f / "adapter" / CONFIG).read_text()) for f in (earlier, tmp_path))
    assert one == other


def test_the_frozen_copy_is_the_start_and_is_not_saved(tiny_model: Path, earlier: Path, tmp_path: Path) -> None:
    start = str(earlier / "adapter")
    model, began = Lora(start=start).attach(load(tiny_model)), Lora(start=start).attach(load(tiny_model))
    hold_start(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [name for name, p in began.named_parameters() if p.requires_grad]
    assert torch.equal(logits(model), logits(began))
    moved(model, 2)
    on = logits(model)
    assert not torch.allclose(on, logits(began), atol=1e-2)
    with adapter_off(model):
        assert torch.equal(logits(model), logits(began))
        assert torch.equal(head_parts(model.lm_head)[2], head_parts(began.lm_head)[2])
        assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
        with adapter_off(model):
            pass
        assert torch.equal(logits(model), logits(began))
    assert torch.equal(logits(model), on)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    write_model(model, model.state_dict(), tmp_path)
    torch.testing.assert_close(logits(load(tmp_path)), on, rtol=1e-5, atol=1e-5)
    names = load_file(tmp_path / "adapter" / WEIGHTS).keys()
    assert names == load_file(earlier / "adapter" / WEIGHTS).keys()


def test_switching_leaves_what_learns(tiny_model: Path) -> None:
    """An adapter that is frozen, beside a value head that learns, stays so."""
    pytest.importorskip("peft")
    model = Lora(rank=2).attach(load(tiny_model)).requires_grad_(False)
    with adapter_off(model):
        pass
    assert not any(p.requires_grad for p in model.parameters())


def test_the_reference_s_head_has_the_start_s_adapter(tiny_model: Path, earlier: Path) -> None:
    """Copied, since the policy's moves on; one that starts as nothing is not."""
    from stepdpo.models.attention.registry import register

    register()
    model = Lora(start=str(earlier / "adapter")).attach(load(tiny_model))
    scorer = Scorer(model, True, lambda _: None)
    assert scorer.reference_head_VH is None
    before = head_parts(model.lm_head)[2].detach().clone()
    assert torch.equal(scorer.reference_up_VR, before)
    moved(model, 2)
    assert torch.equal(scorer.reference_up_VR, before)
    fresh = Scorer(Lora(rank=2, head=True).attach(load(tiny_model)), True, lambda _: None)
    assert fresh.reference_up_VR is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 8}, r"adapter\.rank=8: the adapter in .* has 4; leave adapter\.rank out"),
        ({"alpha": 32.0}, r"adapter\.alpha=32\.0: .* has 8"),
        ({"rslora": False}, r"adapter\.rslora=False: .* has True"),
        ({"head": False}, r"adapter\.head=False: .* has True"),
        ({"targets": ["q_proj"]}, r"adapter\.targets=\[q_proj\]: .* has \['q_proj', 'up_proj'\]"),
        ({"targets": "all-linear"}, r"adapter\.targets=all-linear: "),
    ],
)
def test_settings_that_say_otherwise(settings: dict[str, Any], said: str, tiny_model: Path, earlier: Path) -> None:
    with pytest.raises(UserError, match=said):
        Lora(start=str(earlier / "adapter"), **settings).attach(load(tiny_model))
    agreed = {"rank": 4, "alpha": 8.0, "rslora": True, "head": True, "targets": ["up_proj", "q_proj"]}
    Lora(start=str(earlier / "adapter"), **agreed).attach(load(tiny_model))


def changed(**settings: Any) -> Callable[[Path], None]:
    """adapter_config.json with other settings."""

    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | settings
        (folder / CONFIG).write_text(json.dumps(config))

    return change


def rewritten(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return rewrite


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut_off(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])


def pointed(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


LOOKS: list[tuple[Callable[[Path], Any], str]] = [
    (pickled, "holds no adapter_model.safetensors; adapter_model.bin is a pickle"),
    (pointed, "is a pointer of git-lfs"),
    (lambda folder: (folder / CONFIG).write_text("{"), "adapter_config.json is damaged"),
    (lambda folder: (folder / CONFIG).write_text("[]"), "adapter_config.json is damaged"),
    (changed(peft_type="IA3"), "peft_type is 'IA3'; only LORA"),
    (changed(use_dora=True), "use_dora: only plain LoRA"),
    (changed(modules_to_save=["embed_tokens"]), "modules_to_save: only plain LoRA"),
    (changed(bias="all"), "bias is 'all'"),
    (changed(init_lora_weights="pissa_niter_4"), "'pissa_niter_4', which changes the base too"),
    (changed(r=0), "r is 0"),
    (changed(lora_alpha="8"), "lora_alpha is '8'"),
    (changed(target_modules=[]), "target_modules names no layers"),
]
READS: list[tuple[Callable[[Path], Any], str]] = [
    (cut_off, "adapter_model.safetensors is damaged or cut off"),
    (rewritten(lambda w: w.pop(UP)), "lacks model.layers.1.mlp.up_proj.lora_B.weight"),
    (rewritten(lambda w: w.clear()), "lacks weights"),
    (rewritten(lambda w: w[UP].view(-1)[3:4].fill_(float("nan"))), f"{UP} in .* is not finite"),
    (rewritten(lambda w: w[UP].view(-1)[3:4].fill_(float("inf"))), "is not finite"),
    (rewritten(lambda w: w.update({UP: w[UP].int()})), "is not finite"),
    (
        rewritten(lambda w: w.update({"base_model.model.lm_head.lora_magnitude_vector": w[UP].clone()})),
        "which is no A or B",
    ),
]
FITS: list[tuple[Callable[[Path], Any], str]] = [
    (rewritten(lambda w: w.update({UP: w[UP][:, :2].contiguous()})), r"up_proj.lora_B.weight is \(\d+, 2\) and should"),
    (rewritten(lambda w: [w.pop(n) for n in list(w) if "layers.1.mlp" in n]), "no weights for model.layers.1.mlp.up"),
    (
        changed(target_modules=["q_proj", "lm_head"]),
        "has no layer for model.layers.0.mlp.up_proj, model.layers.1.mlp.up_proj",
    ),
    (changed(target_modules=["c_attn"]), "does not fit the model"),
]


@pytest.mark.parametrize(("spoil", "said"), LOOKS)
def test_what_a_look_refuses(spoil: Callable[[Path], Any], said: str, folder: Path) -> None:
    """Without reading a weight."""
    assert look(str(folder))["r"] == 4
    spoil(folder)
    with pytest.raises(UserError, match=f"^adapter.start: .*{said}"):
        look(str(folder))


@pytest.mark.parametrize(("spoil", "said"), READS)
def test_what_reading_refuses(spoil: Callable[[Path], Any], said: str, folder: Path) -> None:
    read(str(folder))
    spoil(folder)
    with pytest.raises(UserError, match=f"^adapter.start: .*{said}"):
        read(str(folder))


@pytest.mark.parametrize(("spoil", "said"), FITS)
def test_what_does_not_fit_the_model(spoil: Callable[[Path], Any], said: str, folder: Path, tiny_model: Path) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=f"^adapter.start: .*{said}"):
        Lora(start=str(folder)).attach(load(tiny_model))


def test_folders_that_are_something_else(earlier: Path, tiny_model: Path, tmp_path: Path) -> None:
    cases = [
        (str(earlier), f"the adapter is {earlier / 'adapter'}"),
        (str(tiny_model), "is a whole model and no adapter; a training starts from it by model="),
        (str(tmp_path), "it should be an adapter in peft's format"),
        ("me/adapter", "there is no folder 'me/adapter'; one of the hub is fetched first"),
        ("./nowhere", "there is no folder './nowhere'$"),
    ]
    for path, said in cases:
        with pytest.raises(UserError, match=said):
            look(path)


def test_the_base_it_was_trained_beside(earlier: Path, tiny_model: Path, folder: Path) -> None:
    start = str(folder)
    assert doubt(start, tiny_model, {"weights": "these"}) == ""
    assert "other weights than the model's" in doubt(start, tiny_model, {"weights": "others"})
    assert "that is not quantised, and is now put beside one in nf4" in doubt(
        start, tiny_model, {"weights": "these", "type": "nf4"}
    )
    with pytest.raises(UserError, match=r"is merged into .* already"):
        doubt(start, earlier, {"weights": "these"})
    (folder / "base.json").write_text("[")
    with pytest.raises(UserError, match=r"base\.json is damaged"):
        doubt(start, tiny_model, {"weights": "these"})
    (folder / "base.json").unlink()
    assert doubt(start, None, {"weights": "others"}) == ""
