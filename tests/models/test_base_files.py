"""Checkpoints as other programs read them: the base's files to the byte, a configuration for every transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import bases
from support.commands import stepdpo

from stepdpo import tinymath
from stepdpo.models.base_files import config_of_any_version, read_base, take_over
from stepdpo.models.load import Fresh, Pretrained
from stepdpo.models.save import SaveDtype, save_dtype, write_model

FOUR = "transformers==4.57.1"
READ = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
texts = ["Tom has 12 pens.\\n\\nStep 1: 3 + 4 = 7, isn't it?", "  Zoë's 1,234 beads \\n", "x " * 60]
read = {"version": transformers.__version__}
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()
    ids = [tokenizer(text)["input_ids"] for text in texts]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "2 + 3?"}], tokenize=False)
    with torch.no_grad():
        logits = [model(torch.tensor([some])).logits[0, -1].tolist() for some in ids]
    read[folder] = {"ids": ids, "logits": logits, "chat": chat, "end": tokenizer.eos_token_id}
print(json.dumps(read))
"""


def write(spec: Any, folder: Path, dtype: SaveDtype = SaveDtype.trained) -> dict[str, Any]:
    """A checkpoint of the model as it is, and its configuration."""
    model, base = spec.model("sdpa", torch.float32), read_base(spec.folder())
    folder.mkdir()
    write_model(model, model.state_dict(), folder, save_dtype(dtype, base.config))
    take_over(base, spec.tokenizer(), folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize("family", bases.MODELS)
def test_what_training_does_not_change_is_as_the_base_has_it(family: str, tmp_path: Path) -> None:
    base = bases.save(tmp_path / "base", family)
    config = write(Pretrained(path=str(base)), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    before = json.loads((base / "config.json").read_text())
    assert {key for key in before if config[key] != before[key]} == {"torch_dtype"}
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == before["rope_theta"]


def test_files_are_open_to_whom_their_folder_is(tmp_path: Path) -> None:
    base = bases.save(tmp_path / "base", "qwen2")
    write(Pretrained(path=str(base)), tmp_path / "out")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {
        (tmp_path / "out").stat().st_mode & 0o666
    }


@pytest.mark.parametrize(
    ("wanted", "written"),
    [("trained", "float32"), ("base", "bfloat16"), ("bfloat16", "bfloat16"), ("float16", "float16")],
)
def test_the_number_format_is_a_setting(wanted: str, written: str, tmp_path: Path) -> None:
    base = bases.save(tmp_path / "base", "qwen2")
    config = write(Pretrained(path=str(base)), tmp_path / "out", SaveDtype(wanted))
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in held.values()} == {getattr(torch, written)}
    assert config["torch_dtype"] == config["dtype"] == written


def test_a_base_in_the_words_of_5_gets_those_of_4() -> None:
    """Rotary bases under the old names, by kinds of layers too (Gemma 3)."""
    scaled = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    whole = config_of_any_version({"dtype": "bfloat16", "rope_parameters": scaled}, {})
    assert whole["rope_theta"] == 5e5
    assert whole["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    assert whole["torch_dtype"] == "bfloat16"
    kinds = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    }
    whole = config_of_any_version({"rope_parameters": kinds}, {})
    assert (whole["rope_theta"], whole["rope_local_base_freq"]) == (1e6, 1e4)
    assert whole["rope_scaling"]["factor"] == 8.0


def test_a_tokenizer_in_the_words_of_5_gets_those_of_4(tmp_path: Path) -> None:
    write(Fresh(hidden_size=32, layers=1), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["additional_special_tokens"] == ["<|im_start|>"]
    assert "extra_special_tokens" not in config
    assert Pretrained(path=str(tmp_path / "out")).tokenizer().get_vocab() == Fresh().tokenizer().get_vocab()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with transformers 4 and this environment's torch; STEPDPO_TRANSFORMERS_4 names one that is there."""
    if given := os.environ.get("STEPDPO_TRANSFORMERS_4"):
        return Path(given)
    home = tmp_path_factory.mktemp("four")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    # Not compiled: a tenth of it is imported, once.
    install = [python, "-m", "pip", "install", "-q", "--no-compile", FOUR]
    made = subprocess.run(install, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"{FOUR} cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
    # Behind its own packages: torch is found here, and transformers there.
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (own / "outer.pth").write_text(sysconfig.get_path("purelib"))
    return python


def read(python: Path | str, folders: list[Path]) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", READ, *folders], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.exhaustive
def test_trained_checkpoints_open_in_transformers_4_and_5(four: Path, tmp_path: Path) -> None:
    """Three families of tokenizers, and the miniature: equal ids, and equal logits to fp32 rounding."""
    folders = []
    for family in (*bases.MODELS, "tinymath"):
        if family != "tinymath":
            bases.save(tmp_path / family, family)
        done = stepdpo(
            "train", f"model={family if family == 'tinymath' else f'./{family}'}", "engine=local", "batch.pairs=8",
            "algo=sft", "dataset=tinymath_solutions", "dataset.count=16", "dataset.heldout=0", "max_steps=2",
            "template=alpaca", "save_every=0", "optim.lr=1e-2", f"run={family}", cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 0, done.said
        folders.append(tmp_path / "runs" / family / "model")
    shutil.rmtree(tmp_path / "llama3")  # nothing is read from the base
    folders += [Path(tinymath.__file__).with_name(name) for name in ("model", "long_model")]  # as they are shipped
    old, new = read(four, folders), read(sys.executable, folders)
    assert old.pop("version").startswith("4.")
    assert new.pop("version").startswith("5.")
    for folder in map(str, folders):
        assert old[folder]["ids"] == new[folder]["ids"]
        assert (old[folder]["chat"], old[folder]["end"]) == (new[folder]["chat"], new[folder]["end"])
        for mine, theirs in zip(old[folder]["logits"], new[folder]["logits"], strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-5, atol=1e-5)
