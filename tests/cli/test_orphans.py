"""Processes of a run that lose their command, their launcher or each other: nobody writes alone, everybody is named."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import Done, ended, metrics, start, stepdpo, until

pytestmark = pytest.mark.slow

LAUNCHER = "deepspeed.launcher.launch"
WORKER = "stepdpo.cli.worker"


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "batch.pairs=8", "epochs=900",
        "max_steps=400", "optim.lr=1e-4", "log_every=1", "save_every=4", "eval_every=0", "template=alpaca", "keep=1",
        "engine=zero", "engine.dtype=float32", "engine.stage=2", "run=x",
        "guard=none",  # whose findings would be lines of their own
    ]  # fmt: skip


class Started:
    """A training that runs, and the processes below its command."""

    def __init__(self, words: list[str], cwd: Path) -> None:
        self.run = cwd / "runs" / "x"
        self.process = start(*words, cwd=cwd)
        until(lambda: self.last >= 2, self.process)
        self.below = psutil.Process(self.process.pid).children(recursive=True)

    @property
    def last(self) -> int:
        """The last update in the log."""
        return max((line["step"] for line in metrics(self.run)), default=0)

    @property
    def launcher(self) -> psutil.Process:
        return next(p for p in self.below if LAUNCHER in p.cmdline())

    def worker(self, rank: int) -> psutil.Process:
        return next(w for w in self.workers if int(w.environ().get("RANK", "0")) == rank)

    @property
    def workers(self) -> list[psutil.Process]:
        return [p for p in self.below if WORKER in p.cmdline() and LAUNCHER not in p.cmdline()]

    def end(self) -> Done:
        """How the command ended; no process of it is left."""
        done = ended(self.process)
        _, left = psutil.wait_procs(self.below, timeout=30)
        assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]
        return done

    def kill(self) -> None:
        self.process.kill()
        for one in self.below:
            if one.is_running():
                one.kill()


@pytest.fixture
def started(request: pytest.FixtureRequest, words: list[str], tmp_path: Path) -> Iterator[Started]:
    training = Started([*words, *request.param], tmp_path)
    yield training
    training.kill()


two = pytest.mark.parametrize("started", [("engine.processes=2",)], indirect=True)
one = pytest.mark.parametrize("started", [("engine.processes=1",)], indirect=True)


@one
@pytest.mark.exhaustive
def test_two_commands_never_write_at_once(started: Started, words: list[str], tmp_path: Path) -> None:
    """A worker in the middle of an update outlives its command; it once wrote that update beside the next command's."""
    (worker,) = started.workers
    worker.suspend()
    started.process.kill()
    started.process.wait()
    refused = stepdpo("train", "run=x", "resume=true", cwd=tmp_path)
    assert refused.code == 2, refused.said
    assert f"of a command that has ended, rank 0 (pid {worker.pid} on " in refused.err
    second = start("train", "run=x", "resume=true", cwd=tmp_path)
    try:
        worker.resume()  # its signal has been waiting for it: it saves and stops, and the second goes on from there
        until(lambda: started.last >= 20, second)
        second.send_signal(signal.SIGTERM)
        done = ended(second)
    finally:
        second.kill()
    assert done.code == 143, done.out
    steps = [line["step"] for line in metrics(started.run)]
    assert steps == list(range(1, len(steps) + 1)), "an update written twice"
    saved = [path.name for path in started.run.glob("checkpoints/step-*")]
    assert saved == [f"step-{steps[-1]:06d}"], "the newest checkpoint was pruned"


@two
@pytest.mark.exhaustive
def test_a_killed_launcher(started: Started) -> None:
    """The workers are told to save, and the command waits for them."""
    started.launcher.kill()
    done = started.end()
    assert done.code == 143, done.out
    assert "launcher was killed by signal 9" in done.out
    assert [path.name for path in started.run.glob("checkpoints/step-*")] == [f"step-{started.last:06d}"]


@two
@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named_with_its_signal(started: Started, rank: int) -> None:
    victim = started.worker(rank)
    victim.kill()
    done = started.end()
    assert done.code not in (0, 2), done.out
    error = done.out[done.out.index("error: ") :]
    assert f"rank {rank} (pid {victim.pid} on " in error
    assert "killed by signal 9" in error


@pytest.mark.parametrize("started", [("engine.processes=2", "engine.timeout_minutes=1")], indirect=True)
@pytest.mark.exhaustive
def test_a_hung_rank_is_named_with_the_update(started: Started) -> None:
    """The others wait for `engine.timeout_minutes`, no longer, and say for whom."""
    victim = started.worker(1)
    victim.suspend()
    done = started.end()
    assert done.code == 1, done.out
    error = done.out[done.out.index("error: ") :]
    assert f"rank 0 lost the other processes in update {started.last + 1}: " in error
    assert f"no answer from rank 1 (pid {victim.pid} on " in error


@pytest.mark.exhaustive
def test_a_command_that_is_killed_outright_takes_its_workers_along(words: list[str], tmp_path: Path) -> None:
    training = Started([*words, "engine.processes=1"], tmp_path)
    try:
        training.process.kill()
        _, left = psutil.wait_procs(training.below, timeout=60)
        assert not left
        assert isinstance(training.process, subprocess.Popen)
        assert [path.name for path in training.run.glob("checkpoints/step-*")] == [f"step-{training.last:06d}"]
    finally:
        training.kill()
