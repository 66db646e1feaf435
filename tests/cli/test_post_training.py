"""What follows a training: that which was asked for when it was started, with its own configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli import post_training
from stepdpo.cli.evaluations import evaluation_folder
from stepdpo.cli.job_config import FollowUp
from stepdpo.cli.overrides import composed
from stepdpo.runtime.atomic_io import write_json

NOTHING = FollowUp()
MATH = FollowUp(("math",))


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of `evaluate_after_training`: (beta of the run, choices, what follows)."""
    calls: list[tuple[Any, ...]] = []

    def evaluate(folder: Path, training: Any, choices: Any, what: FollowUp, runs: Path) -> None:
        calls.append((training.algo.beta, choices, what))

    monkeypatch.setattr(post_training, "evaluate_after_training", evaluate)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("algo: {beta: 0.7}\n")
    manifest = {"choices": {"algo": "dpo"}, "then": ["gsm8k"], "then_with": ["task.limit=5"]}
    write_json(tmp_path / "manifest.json", manifest)
    return tmp_path


def test_a_resumed_run_remembers(folder: Path, followed: list[tuple[Any, ...]]) -> None:
    for given in (NOTHING, MATH):
        post_training.follow_up(folder, given, Path("runs"), already_finished=False)
    own = (0.7, {"algo": "dpo"})
    assert followed == [(*own, FollowUp(("gsm8k",), ("task.limit=5",))), (*own, MATH)]


def test_a_finished_run_is_evaluated_once(folder: Path, followed: list[tuple[Any, ...]]) -> None:
    post_training.follow_up(folder, NOTHING, Path("runs"), already_finished=True)
    assert len(followed) == 1
    (folder / "report.json").write_text("{}")
    post_training.follow_up(folder, NOTHING, Path("runs"), already_finished=True)
    assert len(followed) == 1
    post_training.follow_up(folder, MATH, Path("runs"), already_finished=True)
    assert len(followed) == 2


def test_a_base_without_a_head_is_evaluated_greedily(capsys: pytest.CaptureFixture[str]) -> None:
    """A search by the head that a training makes: its base, the shipped miniature, has none."""
    words = ["task=tinymath", "scorer=value_head", "decode.max_tokens=150", "task.count=7", "seeds=3"]
    config = post_training.as_base_can(composed("eval", ["decode=step_beam", *words]))
    assert config == composed("eval", ["task=tinymath", "decode.max_tokens=150", "task.count=7"])
    said = capsys.readouterr().out
    assert "has no value head" in said
    assert "so it is evaluated by decode=greedy, without a scorer" in said


@pytest.mark.parametrize("words", [["decode=step_beam", "scorer=logprob"], ["decode=vote"], []])
def test_a_base_is_evaluated_as_its_model_where_it_can_be(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = composed("eval", words)
    assert post_training.as_base_can(config) == config
    assert not capsys.readouterr().out


@pytest.mark.parametrize("decode", ["best_of_n", "dvts", "greedy", "mcts", "sample", "step_beam", "vote"])
@pytest.mark.parametrize("scorer", ["implicit", "judge", "logprob", "none", "prm", "value_head"])
def test_an_evaluation_after_a_training_lies_where_one_of_its_own_would(decode: str, scorer: str) -> None:
    """The choices of a training name no decoder; another one must not replace what greedy decoding came to."""
    config = composed("eval", [f"decode={decode}", f"scorer={scorer}"])
    own = evaluation_folder(Path("r"), config, {"decode": decode, "scorer": scorer})
    assert evaluation_folder(Path("r"), config, {"algo": "dpo"}) == own
