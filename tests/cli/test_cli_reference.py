"""Where the reference's numbers come from never shows in the trajectory; a second run and a sweep find them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import commands
from support.trainings import Runs

from stepdpo.runtime import artifact_cache as caches


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(caches.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("algo", [pytest.param("dpo", marks=[pytest.mark.slow, pytest.mark.exhaustive]), "tdpo"])
def test_cache_online_and_adapter_off_are_one_trajectory(
    algo: str, tiny_model: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    """Every line of metrics.jsonl, with an adapter that learns."""
    runs = Runs(tmp_path, [*pairs_words, "model=pretrained", f"model.path={tiny_model}"])
    common = (f"algo={algo}", "adapter=lora", "adapter.rank=4", "optim.lr=1e-2", "save_every=0")
    lines = {m: commands.metrics(runs.local(m, *common, f"reference={m}")) for m in ("cache", "online", "adapter_off")}
    assert len(lines["cache"]) > 6
    assert lines["cache"][-1]["heldout/loss"] < lines["cache"][0]["heldout/loss"] - 1e-3
    for mode in ("online", "adapter_off"):
        for ours, theirs in zip(lines["cache"], lines[mode], strict=True):
            assert theirs == pytest.approx(ours, rel=2e-5, abs=5e-5), mode


@pytest.mark.slow
def test_a_sweep_scores_the_reference_once(
    home: Path, tiny_model: Path, pairs_words: list[str], tmp_path: Path
) -> None:
    words = ["engine=local", f"model={tiny_model}", *pairs_words, "max_steps=1", "save_every=0", "runs=runs"]
    done = commands.stepdpo("train", "-m", "algo.beta=0.1,0.4", *words, cwd=tmp_path)
    assert done.code == 0, done.said
    assert done.said.count("train pairs scored") == 1
    assert done.said.count("scores of 24 train pairs from") == 1
    entries = list((home / "reference").iterdir())
    assert len(entries) == 2  # training and held-out pairs
    assert json.loads((entries[0] / caches.KEY).read_text())["attention"] == "stepdpo_tree"


@pytest.mark.usefixtures("home")
@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_cannot_be_is_refused(tiny_model: Path, pairs_words: list[str], tmp_path: Path) -> None:
    words = ["engine=local", f"model={tiny_model}", *pairs_words]
    done = commands.stepdpo("train", "reference=adapter_off", *words, cwd=tmp_path)
    assert (done.code, "adapter=lora" in done.said) == (2, True)
    done = commands.stepdpo("train", "reference=onlin", *words, cwd=tmp_path)
    assert done.code == 2
    assert "did you mean 'online'?" in done.said
