"""What a folder of weights may lack or hold wrongly: refused by name, and never made up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import stepdpo
from support.tiny import save_model

from stepdpo.core.errors import UserError
from stepdpo.models.integrity import refuse_unknown_tokens
from stepdpo.models.load import Pretrained

UP = "model.layers.0.mlp.up_proj.weight"
WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        held = {name: value.clone() for name, value in load_file(folder / WEIGHTS).items()}
        change(held)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def index(folder: Path) -> None:
    content = {"weight_map": {"a": WEIGHTS, "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


DAMAGE = {
    "missing": (weights(lambda w: w.pop(UP)), f"weights are missing in .*{UP}"),
    "no head": (weights(lambda w: w.pop("lm_head.weight")), "weights are missing in .*lm_head.weight"),
    "many missing": (
        weights(lambda w: [w.pop(name) for name in list(w) if "mlp" in name]),
        "mlp.down_proj.weight, .* and 3 more",
    ),
    "another shape": (weights(lambda w: w.update({UP: torch.ones(7, 32)})), r"up_proj.weight is \(7, 32\) and should"),
    "nan": (weights(lambda w: w[UP].fill_(float("nan"))), f"are not finite: {UP}"),
    "one infinite": (weights(lambda w: w[UP][0].fill_(float("-inf"))), f"are not finite: {UP}"),
    "torn": (cut(WEIGHTS, 5000), "model.safetensors is damaged or cut off"),
    "empty": (cut(WEIGHTS, 0), "model.safetensors is damaged or cut off"),
    "a pointer": (text(WEIGHTS, POINTER), "model.safetensors is a pointer of git-lfs"),
    "a pointer for tokens": (text("tokenizer.json", POINTER), "tokenizer.json is a pointer of git-lfs"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot load .*no file named model.safetensors"),
    "a shard missing": (index, "model-2.safetensors is missing"),
    "a torn index": (text("model.safetensors.index.json", "{"), "index.json is damaged"),
    "a torn configuration": (cut("config.json", 50), "is not a valid JSON file"),
    "torn tokens": (cut("tokenizer.json", 500), "no tokenizer in"),
    "strange tokens": (text("tokenizer.json", "{}"), "no tokenizer in"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "an adapter": (text("adapter_config.json", "{}"), "is an adapter .* and no model; merge it into its base"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), tied=False)


def open_whole(folder: Path) -> Any:
    spec = Pretrained(path=str(folder))
    tokenizer, model = spec.tokenizer(), spec.model("sdpa", torch.float32)
    refuse_unknown_tokens(tokenizer, model, spec.path)
    return model


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, base: Path, tmp_path: Path) -> None:
    damage, said = DAMAGE[name]
    folder = shutil.copytree(base, tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=said):
        open_whole(folder)


def test_a_head_tied_to_the_embedding_is_not_missing(tmp_path: Path) -> None:
    folder = save_model(tmp_path, tied=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    open_whole(folder)


def test_the_adapter_beside_a_merged_model_names_it(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=f"the model with it merged in is {folder}"):
        open_whole(folder / "adapter")


def test_weights_without_a_place_are_said(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    weights(lambda w: w.update({UP.replace("0", "7"): torch.ones(3)}))(folder)
    open_whole(folder)
    said = capfd.readouterr()
    assert f"has no place for: {UP.replace('0', '7')}\n" in said.out
    assert "LOAD REPORT" not in said.err


def test_a_token_without_a_row(base: Path, tmp_path: Path) -> None:
    """Of more rows than tokens, as padded embeddings have, nothing is said."""
    folder = shutil.copytree(base, tmp_path / "model")
    tokenizer = Pretrained(path=str(folder)).tokenizer()
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"more tokens than the embedding has rows .*'<more>' is number"):
        open_whole(folder)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["missing", "no head", "another shape", "nan", "torn"])
def test_damage_is_named_where_two_processes_share_a_model(
    name: str, base: Path, preferences: Path, tmp_path: Path
) -> None:
    """Under ZeRO 3 each loads its shards of the weights, and what is missing would be filled by nobody."""
    damage, said = DAMAGE[name]
    said = {"another shape": r"up_proj.weight: .*7, 32"}.get(name, said)
    damage(Path(shutil.copytree(base, tmp_path / "model")))
    done = stepdpo(
        "train", "model=model", "dataset=jsonl", f"dataset.path={preferences}", "max_steps=2", "engine=zero",
        "engine.stage=3", "engine.processes=2", "engine.device=cpu", "run=x", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 2, done.said
    assert done.said.count("error: ") == 1
    assert re.search(said, done.err), done.said
    assert "Traceback" not in done.said
    assert not (tmp_path / "runs").exists()
