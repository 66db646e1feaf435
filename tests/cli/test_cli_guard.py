"""The guard on the command line: a training that diverges is warned of or stopped, a healthy one is left alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.commands import Done, metrics, stepdpo

from stepdpo.runtime.checkpoint_files import newest_whole

BROKEN = ("optim.lr=1e-1", "optim.clip=0")
"""At which the tiny model's chosen sides fall with the first update."""


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=2", "log_every=4", "save_every=0", "eval_every=0", "template=alpaca", "engine=local",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stopped(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    root = tmp_path_factory.mktemp("guard")
    return stepdpo(*words, *BROKEN, "guard.action=stop", "run=broken", cwd=root), root / "runs" / "broken"


def guarded(run: Path) -> list[dict[str, float]]:
    return [line for line in metrics(run) if any(name.startswith("guard/") for name in line)]


@pytest.mark.slow
def test_a_training_that_diverges_is_stopped(stopped: tuple[Done, Path]) -> None:
    done, run = stopped
    assert done.code == 1, done.said
    assert "Traceback" not in done.said
    (line,) = guarded(run)
    assert line["guard/lost_per_token"] > 0.01
    assert f"stopped by guard.action=stop at update {line['step']}: chosen sides have lost" in done.err
    assert "In a new run lower optim.lr" in done.err
    assert "raise algo.beta" in done.err
    checkpoint, _ = newest_whole(run)
    assert checkpoint is not None
    assert checkpoint.name == f"step-{line['step'] - 1:06}", "the update that was looked at is not made"
    assert not (run / "model").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_was_stopped_can_go_on(stopped: tuple[Done, Path], tmp_path: Path) -> None:
    """As it was, the guard stops it at the same update again; told to warn, it goes on to the end."""
    _, run = stopped
    (line,) = guarded(run)
    shutil.copytree(run.parent, tmp_path / "runs")
    again = stepdpo("train", "run=broken", "resume=true", cwd=tmp_path)
    assert again.code == 1, again.said
    assert again.err == stopped[0].err
    assert guarded(tmp_path / "runs" / "broken") == [line]
    on = stepdpo("train", "run=broken", "resume=true", "guard.action=warn", cwd=tmp_path)
    assert on.code == 0, on.said
    assert (tmp_path / "runs" / "broken" / "model" / "config.json").is_file()
    assert guarded(tmp_path / "runs" / "broken") == [line]
    assert on.out.count("said once") == 1
    assert f"passed bounds of its guard: guard.lost_per_token since update {line['step']}" in on.out


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_warning_is_said_once_and_a_healthy_run_has_none(words: list[str], tmp_path: Path) -> None:
    warned = stepdpo(*words, *BROKEN, "run=warned", cwd=tmp_path)
    assert warned.code == 0, warned.said
    assert warned.out.count("(said once)") == len(guarded(tmp_path / "runs" / "warned")) == 1
    assert re.search(r"warning: update \d: chosen sides have lost .* nats a token", warned.out)
    well = stepdpo(*words, "optim.lr=1e-5", "guard.action=stop", "run=well", cwd=tmp_path)
    assert well.code == 0, well.said
    assert "guard" not in well.out
    assert guarded(tmp_path / "runs" / "well") == []
    unguarded = stepdpo(*words, *BROKEN, "guard=none", "run=unguarded", cwd=tmp_path)
    assert unguarded.code == 0, unguarded.said
    assert guarded(tmp_path / "runs" / "unguarded") == []
    kept = [line for line in metrics(tmp_path / "runs" / "warned") if "loss" in line]
    assert kept == [line for line in metrics(tmp_path / "runs" / "unguarded") if "loss" in line]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_sample_of_answers(words: list[str], tmp_path: Path) -> None:
    """Random weights answer nothing and end nowhere, from the start on: no finding, and the training is unmoved."""
    asked = ("guard.sample=3", "guard.every=2", "guard.max_tokens=8")
    sampled = stepdpo(*words, "optim.lr=1e-5", *asked, "run=sampled", cwd=tmp_path)
    assert sampled.code == 0, sampled.said
    plain = stepdpo(*words, "optim.lr=1e-5", "run=plain", cwd=tmp_path)
    assert plain.code == 0, plain.said
    run = tmp_path / "runs" / "sampled"
    assert [line["step"] for line in metrics(run) if "sample/unparsed" in line] == [0, 2, 4, 6]
    (first, *_) = (line for line in metrics(run) if "sample/unparsed" in line)
    assert first["sample/run_on"] == 1.0
    assert first["sample/tokens"] == 8.0
    assert guarded(run) == []
    unsampled = [line for line in metrics(run) if "sample/unparsed" not in line]
    assert unsampled == metrics(tmp_path / "runs" / "plain")
    weights = [(tmp_path / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("sampled", "plain")]
    assert weights[0] == weights[1]
    assert not list(run.glob(".sample*"))
    assert json.loads((run / "manifest.json").read_text())["choices"]["guard"] == "drift"


def test_zero_has_no_sample(words: list[str], tmp_path: Path) -> None:
    refused = stepdpo(*words, "engine=zero", "engine.device=cpu", "guard.sample=3", cwd=tmp_path)
    assert refused.code == 2, refused.said
    assert "error: guard.sample needs engine=local" in refused.err
