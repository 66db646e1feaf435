"""A reference that is another model than the policy's start: the numbers, the cache, and what is refused."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest
from support import commands, tiny, twins
from support.tiny import save_model
from support.trainings import Runs
from support.twins import Setting, close, ours, twin
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.tdpo import TDPO, Form
from stepdpo.data.level import Instance, Step
from stepdpo.runtime import artifact_cache

LOSSES = {
    "dpo": (DPO(), twins.dpo),
    "tdpo1": (TDPO(form=Form.tdpo1), twins.tdpo1),
    "tdpo2": (TDPO(), twins.tdpo2),
    "kto": (KTO(), twins.kto),
}


def another(attention: str) -> Any:
    """As the usual tiny model, everything moved, the head too."""
    model = tiny.model(attention)
    tiny.perturb(model, seed=5, size=0.05)
    return model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


ALGO = [pytest.param("dpo", marks=[pytest.mark.slow, pytest.mark.exhaustive]), "tdpo"]
"""TDPO wants all that a reference has, and DPO a part of that."""


@pytest.fixture(scope="module")
def other(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, with moved weights."""
    folder = tmp_path_factory.mktemp("models") / "other"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tiny.perturb(model, seed=5, size=0.05)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("level", [Step(), Instance()], ids=["step", "instance"])
@pytest.mark.parametrize("name", LOSSES)
def test_packed_equals_padded(name: str, level: Any, tmp_path: Path) -> None:
    """Loss and gradient against two stock models; the KL needs the other model's head, not the policy's."""
    algo, formula = LOSSES[name]
    setting = Setting(algo, level, reference=another)
    metrics, gradient = ours(setting, tmp_path)
    expected = twin(setting, formula)
    assert metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    close(gradient, expected.gradient)
    assert metrics["loss"] != pytest.approx(twin(Setting(algo, level), formula).loss, rel=1e-3)


@pytest.mark.parametrize("algo", ALGO)
def test_the_start_as_the_reference_changes_nothing(
    algo: str, home: Path, tiny_model: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    """Neither a metric nor a weight; the scores that are kept are the same ones."""
    runs = Runs(tmp_path, [*pairs_words, "model=pretrained", f"model.path={tiny_model}", f"algo={algo}"])
    plain = runs.local("plain")
    kept = set((home / "reference").iterdir())
    for mode in ("cache", "online"):
        named = runs.local(mode, f"reference_model={tiny_model}", f"reference={mode}")
        assert commands.metrics(named) == commands.metrics(plain), mode
        weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (named, plain)]
        assert weights[0] == weights[1], mode
    assert set((home / "reference").iterdir()) == kept


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("algo", ALGO)
def test_another_model_is_the_reference_of_every_update(
    algo: str, adapter: str, home: Path, tiny_model: Path, other: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    """Cache and online agree line by line, the first loss is not log 2, and the cache knows which model it was."""
    start = [*pairs_words, "model=pretrained", f"model.path={tiny_model}", f"algo={algo}", f"adapter={adapter}"]
    runs = Runs(tmp_path, start)
    lines = {
        mode: commands.metrics(runs.local(mode, f"reference={mode}", f"reference_model={other}"))
        for mode in ("cache", "online")
    }
    for ours_, theirs in zip(lines["cache"], lines["online"], strict=True):
        assert theirs == pytest.approx(ours_, rel=2e-5, abs=5e-5)
    assert abs(lines["cache"][0]["heldout/loss"] - log(2)) > 1e-3
    entries = len(list((home / "reference").iterdir()))
    plain = commands.metrics(runs.local("plain"))
    assert plain[0]["heldout/loss"] == pytest.approx(log(2), abs=1e-5)
    assert len(list((home / "reference").iterdir())) == 2 * entries


def test_a_run_goes_on_with_its_reference(
    home: Path, tiny_model: Path, other: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    runs = Runs(tmp_path, [*pairs_words, "model=pretrained", f"model.path={tiny_model}", f"reference_model={other}"])
    whole = runs.local("whole", "algo=tdpo")
    cut = runs.cut("cut", "whole", "model", "checkpoints/step-000004")
    assert runs.go_on(cut) == (0, "")
    assert commands.metrics(cut) == commands.metrics(whole)
    assert home.is_dir()


def test_what_cannot_be_a_reference(tiny_model: Path, pairs_words: list[str], tmp_path: Path) -> None:
    foreign = save_model(tmp_path / "foreign", tied=True)
    tokenizer = AutoTokenizer.from_pretrained(foreign)
    tokenizer.add_tokens(["<<new>>"])
    tokenizer.save_pretrained(foreign)
    runs = Runs(tmp_path, [*pairs_words, "model=pretrained", f"model.path={tiny_model}", "engine=local"])
    off = ("adapter=lora", "reference=adapter_off")
    cases = [
        ((f"reference_model={foreign}",), "has other tokens than the model"),
        (("reference_model=./nowhere",), "holds no config.json"),
        ((f"reference_model={foreign}", *off), "reference_model needs cache or online"),
    ]
    for number, (words, said) in enumerate(cases):
        code, message = runs.go_on(runs.write(f"run-{number}", *words), resume=False)
        assert (code, said in message) == (2, True), message


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param("cache", marks=pytest.mark.exhaustive), "online"])
def test_sharded_weights_follow_the_local_engine(
    mode: str, home: Path, tiny_model: Path, other: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    """ZeRO 3: the other model is sharded too, and its head made whole for the KL."""
    words = [*pairs_words, f"model={tiny_model}", "algo=tdpo", f"reference_model={other}", f"reference={mode}"]
    found = []
    for name, engine in (("local", ["engine=local"]), ("zero", ["engine=zero", "engine.stage=3"])):
        done = commands.stepdpo("train", *words, *engine, f"run={name}", cwd=tmp_path, STEPDPO_HOME=str(home / name))
        assert done.code == 0, done.said
        found.append(commands.metrics(tmp_path / "runs" / name))
    for ours_, theirs in zip(*found, strict=True):
        assert theirs == pytest.approx(ours_, rel=1e-4, abs=1e-4)
