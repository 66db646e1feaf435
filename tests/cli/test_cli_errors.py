"""What a user gets wrong on the command line: exit code 2, one line that names it, nothing left behind."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.commands import Done, environment, stepdpo, tree
from support.tiny import save_model

from stepdpo.cli.main import app
from stepdpo.core.errors import UserError
from stepdpo.models.fingerprint import fingerprint
from stepdpo.runtime.artifact_cache import building, entry
from stepdpo.runtime.run_lock import LOCKS
from stepdpo.training.engine.settings import Device, pick_device

MODEL = ("model=fresh", "model.hidden_size=32", "model.layers=1", "model.intermediate_size=32")
SMALL = (*MODEL, "engine=local", "batch.pairs=8", "epochs=1", "log_every=1", "template=alpaca")
SFT = (*SMALL, "algo=sft", "dataset=tinymath_solutions", "dataset.count=20", "dataset.heldout=0")

REAL = {
    "train alog=dpo": "alog: there is no such setting; did you mean 'algo'?",
    "train +track.api_key=sk-CANARY0123456789abcdef": "track.api_key: holds a secret",
    "train algo.beta=-1": "algo.beta: beta must be positive, got -1.0",
    "train dataset=jsonl dataset.path=nowhere.jsonl": "nowhere.jsonl: no such file or folder",
    "train engine.device=cuda": "engine.device=cuda: no GPU",
    "eval task=tinymath,mth": "tasks: task=mth: there is no such task",
    "pairs task=gsm8k": "task=gsm8k has no exact step checker",
}
"""A few of `test_mistaken_words`, in processes as a user starts them."""

INPUTS = {
    "no model": ((*SFT[4:], "model=nowhere"), "model=nowhere: there is no such model"),
    "no rejected sides": ((*SFT, "algo=dpo"), "has no rejected sides, which this algo needs"),
}  # fmt: skip
"""Seen by the worker."""


def refused(done: Done, what: str) -> None:
    assert done.code == 2, done.said
    assert "Traceback" not in done.said
    assert what in done.err, done.err
    assert done.err.count("error: ") == 1
    assert done.err.startswith("error: ")
    assert "CANARY" not in done.said


@pytest.mark.parametrize("row", REAL)
def test_a_mistake_is_told_where_torch_cannot_be_imported(row: str, tmp_path: Path) -> None:
    (tmp_path / "lib" / "torch").mkdir(parents=True)
    (tmp_path / "lib" / "torch" / "__init__.py").write_text("raise SystemExit('error: torch is imported')\n")
    path = f"{tmp_path / 'lib'}:{environment()['PYTHONPATH']}"
    (tmp_path / "cwd").mkdir()
    refused(stepdpo(*row.split(), cwd=tmp_path / "cwd", PYTHONPATH=path, CUDA_VISIBLE_DEVICES=""), REAL[row])
    assert tree(tmp_path / "cwd") == set()


def test_a_terminal_that_cannot_print_what_a_name_holds(tmp_path: Path) -> None:
    """In another encoding than UTF-8: shown as far as it can be."""
    done = stepdpo("check", "./r\u00e4tsel.jsonl", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    refused(done, r"./r\xe4tsel.jsonl: no such file")


def test_a_cache_that_cannot_be_made(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEPDPO_HOME", str(tmp_path / "file" / "cache"))
    final = entry("tokens", {"a": 1})
    with pytest.raises(UserError, match="STEPDPO_HOME"), building(final, {"a": 1}):
        pass
    with pytest.raises(UserError, match="STEPDPO_HOME"):
        fingerprint(tiny_model)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda: no GPU"):
        pick_device(Device.cuda)


def test_every_option_is_rehearsed() -> None:
    """None is refused by mistake, and none fails for want of a library: every part is built from stand-ins."""
    script = """
import sys
from omegaconf import OmegaConf
from stepdpo.cli import rehearsal
from stepdpo.cli.job_config import split
from stepdpo.cli.overrides import composed
from stepdpo.core.config import build
from stepdpo.core.package_data import conf
sys.meta_path.insert(0, rehearsal._StandIns())
for file in sorted(conf().glob("*/*.yaml")):
    part = OmegaConf.load(file)
    if "_target_" in part and not any(OmegaConf.is_missing(part, key) for key in part):
        build(part)
for verb in ("train", "eval", "pairs"):
    build(split(composed(verb, []))[1])
print(sys.modules["torch"].__class__.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "_Module\n", done.stderr


def test_every_task_of_an_evaluation_is_looked_at_first(tmp_path: Path) -> None:
    refused(stepdpo("eval", "task=tinymath,mth", cwd=tmp_path), "tasks: task=mth: there is no such task")
    said = "tasks: task.count: there is no such setting"  # the second task has none
    refused(stepdpo("eval", "task=tinymath,gsm8k", "task.count=5", cwd=tmp_path), said)


def test_options_of_ones_own_are_known_to_what_follows(tmp_path: Path) -> None:
    """By --config-dir: to the tasks of `then`, to `check`, and to every job of a sweep before the first one runs."""
    own = tmp_path / "conf"
    for group, name, text in (
        ("task", "sums", "_target_: stepdpo.data.tasks.Task\nname: sums\npath: sums.jsonl\n"),
        ("dataset", "rows", "_target_: stepdpo.data.dataset.Dataset\npath: rows.jsonl\n"),
    ):
        (own / group).mkdir(parents=True)
        (own / group / f"{name}.yaml").write_text(text)
    words = ("--config-dir", own)
    refused(
        stepdpo("train", *words, "then=[sums,smus]", cwd=tmp_path), "task=smus: there is no such task; did you mean"
    )
    swept = stepdpo("train", *words, "-m", "seed=1,2", "then=[sums]", "force=false,maybe", cwd=tmp_path)
    refused(swept, "force: expected bool, got 'maybe'")
    (tmp_path / "rows.jsonl").write_text('{"query": "2 + 3?", "good": "5", "bad": "6"}\n')
    renamed = [word for pair in ("question=query", "chosen=good", "rejected=bad") for word in ("--columns", pair)]
    done = stepdpo("check", "rows", *words, "--format", "preferences", *renamed, cwd=tmp_path)
    assert done.code == 0, done.said
    assert "format: preferences; the end of text follows 0 of 2 sides" in done.out
    refused(stepdpo("check", "rows.jsonl", "--format", "prefs", cwd=tmp_path), "format: did you mean 'preferences'?")
    assert tree(tmp_path) == {"conf", "conf/task", "conf/task/sums.yaml", "conf/dataset", "conf/dataset/rows.yaml",
                              "rows.jsonl"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.exhaustive
def test_inputs(name: str, tmp_path: Path) -> None:
    words, what = INPUTS[name]
    done = stepdpo("train", *words, "run=x", cwd=tmp_path)
    refused(done, what)
    assert tree(tmp_path) <= {"runs"}


def test_unknown_verb(tmp_path: Path) -> None:
    done = stepdpo("trian", cwd=tmp_path)
    assert done.code == 2
    assert "trian" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_bad_rows(tmp_path: Path, preferences: Path) -> None:
    """They are listed and kept aside; the next attempt needs no force; an existing run does."""
    rows = preferences.read_text().splitlines()
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join([*rows[:10], '{"question": "?"}', "not json", *rows[10:]]) + "\n")
    words = ("train", *SMALL, "dataset=jsonl", f"dataset.path={data}", "run=x", "max_steps=1")
    done = stepdpo(*words, cwd=tmp_path)
    refused(done, "2 of 30 rows cannot be used, and max_bad allows 0.01 of them")
    assert "mine.jsonl:11: " in done.err
    assert "mine.jsonl:12: " in done.err
    run = tmp_path / "runs" / "x"
    assert tree(run) <= {"quarantine.jsonl", *LOCKS}
    assert len([json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]) == 2

    data.write_text("\n".join(rows) + "\n")
    assert stepdpo(*words, cwd=tmp_path).code == 0
    assert (run / "model" / "config.json").is_file()
    before = tree(run)
    refused(stepdpo(*words, cwd=tmp_path), "already exists: resume=true goes on with it, force=true deletes it first")
    refused(stepdpo(*words, "force=true", "epochs=abc", cwd=tmp_path), "epochs: expected int")
    assert tree(run) == before


@pytest.mark.slow
@pytest.mark.exhaustive
def test_diverged(tmp_path: Path) -> None:
    done = stepdpo("train", *SFT, "run=x", "optim.lr=1e30", "optim.clip=0", "optim.warmup=0", "~recipe", cwd=tmp_path)
    assert done.code == 5, done.said
    assert "of update " in done.err
    assert "lower optim.lr" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs" / "x" / "model").exists()
    assert not list((tmp_path / "runs" / "x").glob("**/*.tmp"))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_weight_that_is_missing(tmp_path: Path) -> None:
    """Not drawn at random and trained on."""
    folder = save_model(tmp_path / "base", tied=True)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = stepdpo("train", "model=./base", *SFT[4:], cwd=tmp_path)
    refused(done, "error: model: weights are missing in './base': model.layers.1.mlp.up_proj.weight")


def test_a_command_goes_on_hearing_its_own_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hydra's way of saying nothing itself would silence every log of the process, such as that of a stale lock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-of-the-environment")
    heard = logging.getLogger("stepdpo.runtime.run_lock")
    with pytest.raises(SystemExit, match="2"):
        app(["train", "run=${oc.env:OPENAI_API_KEY}"])  # refused where Hydra has handed over
    assert not heard.disabled
    assert heard.isEnabledFor(logging.WARNING)
