"""Two processes under DeepSpeed's launcher, from the command line: signals, deaths, refusals, a hostfile."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
from support.commands import ended, metrics, signalled, start, stepdpo, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "batch.pairs=8", "epochs=900",
        "max_steps=200", "optim.lr=1e-4", "log_every=1", "save_every=4", "eval_every=0", "template=alpaca", "keep=1",
        "engine=zero", "engine.dtype=float32", "engine.processes=2", "engine.stage=2", "run=x",
        "guard=none",  # whose findings would be lines of their own
    ]  # fmt: skip


def whole_checkpoints(run: Path) -> list[int]:
    return sorted(int(path.parent.name[5:]) for path in run.glob("checkpoints/step-*/MANIFEST.json"))


def test_sigterm_then_sigint_then_a_death_then_the_end(words: list[str], tmp_path: Path) -> None:
    """One run, stopped in every way, each time with a whole checkpoint and nothing half-written."""
    run = tmp_path / "runs" / "x"
    done = signalled(signal.SIGTERM, *words, folder=run, after=2, cwd=tmp_path)
    assert done.code == 143, done.out
    assert "stopped by SIGTERM; a checkpoint was saved, resume=true goes on" in done.out
    last = metrics(run)[-1]["step"]
    assert whole_checkpoints(run) == [last]

    resume = ("train", "run=x", "resume=true")
    done = signalled(signal.SIGINT, *resume, folder=run, after=last + 2, cwd=tmp_path)
    assert done.code == 130, done.out
    assert f"resuming after update {last} " in done.out
    assert "Traceback" not in done.out
    last = metrics(run)[-1]["step"]
    assert whole_checkpoints(run) == [last]

    process = start(*resume, cwd=tmp_path)
    until(lambda: metrics(run)[-1]["step"] >= last + 6, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if rank_of(p) is not None]
    assert sorted(rank_of(p) or 0 for p in workers) == [0, 1]
    victim = next(p for p in workers if rank_of(p) == 1)
    victim.kill()
    done = ended(process)
    assert done.code not in (0, 2), done.out
    error = done.out[done.out.index("error: ") :]
    assert f"rank 1 (pid {victim.pid} on " in error
    assert "killed by signal 9" in error
    assert not [p for p in workers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not (run / "model").exists()
    saved = whole_checkpoints(run)[-1]
    assert saved > last

    done = stepdpo(*resume, cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"resuming after update {saved} " in done.out
    assert [line["step"] for line in metrics(run)] == list(range(1, 201))
    assert (run / "model" / "config.json").is_file()
    assert not list(run.rglob("*.tmp"))
    assert not (run / "reference").exists()


def rank_of(process: psutil.Process) -> int | None:
    try:
        rank = process.environ().get("RANK")
    except psutil.Error:
        return None
    return int(rank) if rank is not None and "stepdpo.cli.worker" in process.cmdline() else None


@pytest.mark.exhaustive
def test_what_the_user_must_mend(words: list[str], tmp_path: Path) -> None:
    """Said once, by whichever process; the launcher's own code and log do not hide it."""
    done = stepdpo(*words, "dataset.path=nowhere.jsonl", cwd=tmp_path)
    assert done.code == 2, done.said
    assert done.said.count("error: ") == 1
    assert "nowhere.jsonl" in done.err
    assert "Traceback" not in done.said
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.exhaustive
def test_diverged(words: list[str], tmp_path: Path) -> None:
    done = stepdpo(*words, "optim.lr=1e30", "optim.warmup=0", "optim.clip=0", "save_every=0", cwd=tmp_path)
    assert done.code == 5, done.said
    assert "lower optim.lr" in done.err
    assert not (tmp_path / "runs" / "x" / "model").exists()


@pytest.mark.exhaustive
def test_deepspeed_s_own_settings(words: list[str], tmp_path: Path) -> None:
    """A wrong key of DeepSpeed's configuration fails at once, in its words."""
    done = stepdpo(*words, "engine.stage=1", "+engine.deepspeed.zero_optimization.reduce_bucket_size=-9", cwd=tmp_path)
    assert done.code in (1, 2), done.said
    assert "stage" in done.said
    assert not (tmp_path / "runs" / "x" / "model").exists()


@pytest.mark.exhaustive
def test_a_hostfile_of_this_machine(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    few = ("engine.processes=1", "max_steps=2", "save_every=1")
    done = stepdpo(*words, *few, f"engine.hostfile={tmp_path / 'hosts'}", cwd=tmp_path)
    assert done.code == 0, done.said
    saved = tmp_path / "runs" / "x" / "checkpoints" / "step-000001" / "trainer.json"
    assert json.loads(saved.read_text())["world"] == 2
