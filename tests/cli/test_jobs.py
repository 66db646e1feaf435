"""A job's folder: what is written, kept, refused and left; no worker is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stepdpo.cli import jobs, processes
from stepdpo.cli.job_result import ExitCode, JobResult
from stepdpo.core.errors import UserError
from stepdpo.runtime import artifact_cache

CONFIG = OmegaConf.create({"seed": 3, "epochs": 2, "log_every": 5, "engine": {"processes": 1}, "key": "${oc.env:HOME}"})


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[bool]]:
    """Make the worker end with a code, FAILED after its first update; returns the `resume` of every start."""

    def with_code(code: int) -> list[bool]:
        started: list[bool] = []

        def start(verb: str, folder: Path, engine: Any, resume: bool = False) -> JobResult:
            started.append(resume)
            (folder / "metrics.jsonl").write_text('{"step": 1}\n' if code == ExitCode.FAILED else '{"step": 0}\n')
            if code == ExitCode.OK:
                (folder / "model").mkdir(exist_ok=True)
                (folder / "model" / "config.json").write_text("{}")
            return JobResult(code)

        monkeypatch.setattr(processes, "start", start)
        return started

    return with_code


def run(folder: Path, config: Any = CONFIG, **options: Any) -> JobResult:
    return jobs.run_in(folder, "train", config, {"algo": "dpo"}, **options)


def test_what_is_written(tmp_path: Path, ends: Callable[[int], list[bool]]) -> None:
    ends(ExitCode.OK)
    assert run(tmp_path / "x", note={"then": ["gsm8k"]}).ok
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["choices"] == {"algo": "dpo"}
    assert manifest["then"] == ["gsm8k"]
    assert "${oc.env:HOME}" in (tmp_path / "x" / "config.yaml").read_text()


def test_a_bad_start_leaves_nothing(tmp_path: Path, ends: Callable[[int], list[bool]]) -> None:
    ends(ExitCode.USER_ERROR)
    assert run(tmp_path / "x").code == ExitCode.USER_ERROR
    assert not (tmp_path / "x").exists()
    ends(ExitCode.OK)
    assert run(tmp_path / "x").ok


def test_so_does_one_that_a_signal_ended_before_its_first_update(
    tmp_path: Path, ends: Callable[[int], list[bool]]
) -> None:
    ends(143)
    assert run(tmp_path / "runs" / "x").code == 143
    assert list(tmp_path.iterdir()) == []


def test_so_does_a_bad_hostfile(tmp_path: Path) -> None:
    """Found by the starting process itself."""
    config = OmegaConf.merge(CONFIG, {"engine": {"hostfile": str(tmp_path / "nowhere")}})
    result = run(tmp_path / "x", config)
    assert result.code == ExitCode.USER_ERROR
    assert "engine.hostfile=" in result.message
    assert not (tmp_path / "x").exists()


def test_a_failure_can_be_resumed(tmp_path: Path, ends: Callable[[int], list[bool]]) -> None:
    ends(ExitCode.FAILED)
    assert run(tmp_path / "x").code == ExitCode.FAILED
    with pytest.raises(UserError, match="already exists"):
        run(tmp_path / "x")
    ends(ExitCode.USER_ERROR)
    assert run(tmp_path / "x", resume=True).code == ExitCode.USER_ERROR
    assert (tmp_path / "x" / "config.yaml").is_file()
    started = ends(ExitCode.OK)
    assert run(tmp_path / "x", resume=True).ok
    assert started == [True]


def test_a_finished_run_is_not_run_again(
    tmp_path: Path, ends: Callable[[int], list[bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    ends(ExitCode.OK)
    run(tmp_path / "x")
    started = ends(ExitCode.FAILED)
    result = run(tmp_path / "x", resume=True)
    assert result.ok
    assert result.already_finished
    assert started == []
    assert "nothing to resume" in capsys.readouterr().out


def test_resumed_with_other_words(tmp_path: Path, ends: Callable[[int], list[bool]]) -> None:
    """What is not given comes from the run; how often it logs may change; the rest may not."""
    ends(ExitCode.FAILED)
    run(tmp_path / "x")
    defaults = OmegaConf.merge(CONFIG, {"seed": 0, "epochs": 9, "log_every": 1})
    run(tmp_path / "x", defaults, resume=True)
    assert OmegaConf.load(tmp_path / "x" / "config.yaml") == CONFIG
    run(tmp_path / "x", defaults, resume=True, given=["log_every=1", "resume=true", "run=x"])
    kept = OmegaConf.load(tmp_path / "x" / "config.yaml")
    assert (kept.log_every, kept.seed, kept.epochs) == (1, 3, 2)
    with pytest.raises(UserError, match="epochs: 2 then, 9 now"):
        run(tmp_path / "x", defaults, resume=True, given=["epochs=9"])


@pytest.mark.parametrize("given", [["judge.server.url=b", "judge.server.retries=2"], ["judge=openai"]])
def test_a_server_may_move(tmp_path: Path, ends: Callable[[int], list[bool]], given: list[str]) -> None:
    """Not to another model."""
    ends(ExitCode.FAILED)
    first = OmegaConf.create({"judge": {"ask_again": 1, "server": {"url": "a", "model": "m", "retries": 6}}})
    run(tmp_path / "x", first)
    moved = OmegaConf.merge(first, {"judge": {"server": {"url": "b", "retries": 2}}})
    run(tmp_path / "x", moved, resume=True, given=given)
    assert OmegaConf.load(tmp_path / "x" / "config.yaml") == moved
    other = OmegaConf.merge(moved, {"judge": {"server": {"model": "n"}}})
    with pytest.raises(UserError, match="started with another configuration"):
        run(tmp_path / "x", other, resume=True, given=[*given, "judge.server.model=n"])


def test_force_checks_first(tmp_path: Path, ends: Callable[[int], list[bool]]) -> None:
    """A mistake in the settings does not cost the run that they would replace."""
    ends(ExitCode.OK)
    run(tmp_path / "x")
    wrong = OmegaConf.create({"_target_": "stepdpo.training.optimizer.AdamW", "lr": "fast"})
    with pytest.raises(UserError, match="expected float"):
        run(tmp_path / "x", wrong, force=True)
    assert (tmp_path / "x" / "model" / "config.json").is_file()
    right = OmegaConf.create({"_target_": "stepdpo.training.optimizer.AdamW", "lr": 1.0})
    assert run(tmp_path / "x", right, force=True).ok


def test_what_killed_processes_left_goes_with_the_next_command(
    tmp_path: Path, ends: Callable[[int], list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run folder when it begins, in the caches when it ends: the worker itself may have been killed."""
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path / "home"))
    ends(ExitCode.FAILED)
    assert not run(tmp_path / "x").ok
    model, scratch = tmp_path / "x" / ".model.tmp", artifact_cache.scratch_of(artifact_cache.entry("tokens", {}))
    for place in (model, scratch):
        place.mkdir(parents=True)
        (place / "data").write_text("half")
    (tmp_path / "x" / ".manifest.json.a1.tmp").write_text("{")
    (tmp_path / "x" / "checkpoints").mkdir()
    ends(137)
    assert not run(tmp_path / "x", resume=True).ok
    assert not list((tmp_path / "x").glob(".*.tmp"))
    assert not scratch.exists()
    assert (tmp_path / "x" / "checkpoints").is_dir()


@pytest.mark.parametrize(
    "content",
    ["3", "[]", "null", "[" * 100_000, '{"rounds": 3}', '{"then": "gsm8k"}', '{"then": [3]}', '{"then_with": 3}'],
    ids=lambda text: text[:20],
)
def test_a_manifest_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: not "):
        jobs.started_with(tmp_path)
