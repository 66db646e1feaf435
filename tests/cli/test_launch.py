"""What follows a training: that which was asked for when it was started, with its own configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli import launch
from stepdpo.runtime import run_folder as runs


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of `afterwards`: (beta of the run, choices, tasks, words)."""
    calls: list[tuple[Any, ...]] = []

    def afterwards(folder: Path, config: Any, choices: Any, tasks: Any, words: Any, root: Path) -> None:
        calls.append((config.algo.beta, choices, tasks, words))

    monkeypatch.setattr(launch, "evaluate_after_training", afterwards)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("algo: {beta: 0.7}\n")
    manifest = {"choices": {"algo": "dpo"}, "then": ["gsm8k"], "then_with": ["task.limit=5"]}
    runs.write_json(tmp_path / "manifest.json", manifest)
    return tmp_path


def test_a_resumed_run_remembers(folder: Path, followed: list[tuple[Any, ...]]) -> None:
    launch._evaluate(folder, {"then": [], "then_with": []}, Path("runs"), finished=False)
    launch._evaluate(folder, {"then": ["math"], "then_with": []}, Path("runs"), finished=False)
    own = (0.7, {"algo": "dpo"})
    assert followed == [(*own, ["gsm8k"], ["task.limit=5"]), (*own, ["math"], [])]


def test_a_finished_run_is_evaluated_once(folder: Path, followed: list[tuple[Any, ...]]) -> None:
    nothing: dict[str, list[str]] = {"then": [], "then_with": []}
    launch._evaluate(folder, nothing, Path("runs"), finished=True)
    assert len(followed) == 1
    (folder / "report.json").write_text("{}")
    launch._evaluate(folder, nothing, Path("runs"), finished=True)
    assert len(followed) == 1
    launch._evaluate(folder, {"then": ["math"], "then_with": []}, Path("runs"), finished=True)
    assert len(followed) == 2


def test_how_a_job_ended() -> None:
    assert launch._end({"code": 0, "outcome": {"heldout/rewards/accuracies": 0.75}}) == "ok (0.75)"
    assert launch._end({"code": 0, "outcome": {}}) == "ok"
    assert launch._end({"code": 5, "message": "one\ntwo", "outcome": {}}) == "exit 5: one"
    assert launch._end({"code": 1, "message": "", "outcome": {}}) == "exit 1: ?"
