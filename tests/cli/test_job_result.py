"""How a job ended: what exit.json holds, what a table says, what a sweeper optimises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepdpo.cli.job_result import ExitCode, JobResult, take_result


def test_exit_json(tmp_path: Path) -> None:
    """What a worker leaves is read once; what this process knows of a job stays out of it."""
    assert take_result(tmp_path) is None
    result = JobResult(ExitCode.DIVERGED, "one\ntwo", {"loss": 0.5})
    JobResult(result.code, result.message, result.outcome, begun=True).write(tmp_path / "exit.json", rank=3)
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]
    left = json.loads((tmp_path / "exit.json").read_text())
    assert left == {"code": 5, "message": "one\ntwo", "outcome": {"loss": 0.5}, "lost_peers": False}
    assert take_result(tmp_path, signal=2) == JobResult(5, "one\ntwo", {"loss": 0.5}, signal=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (JobResult(outcome={"heldout/rewards/accuracies": 0.75}), "ok (0.75)"),
        (JobResult(), "ok"),
        (JobResult(ExitCode.DIVERGED, "one\ntwo"), "exit 5: one"),
        (JobResult(ExitCode.FAILED), "exit 1: ?"),
        (JobResult(143, "stopped"), "exit 143: stopped"),
    ],
)
def test_in_a_few_words(result: JobResult, said: str) -> None:
    assert result.summary == said


def test_what_a_sweeper_optimises() -> None:
    """Larger is better: accuracy as it is, a loss with its sign turned."""
    assert JobResult(outcome={"accuracy": 0.25, "loss": 9.0}).objective == 0.25
    assert JobResult(outcome={"heldout/loss": 0.5, "loss": 9.0}).objective == -0.5
    assert JobResult(outcome={"loss": 9.0}).objective == -9.0
    assert JobResult().objective is None
