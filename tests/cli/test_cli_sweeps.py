"""`-m`: a job for every combination, each in a folder of its own, none stopped by another."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.commands import metrics, signalled, stepdpo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "batch.pairs=8", "max_steps=2",
        "log_every=1", "save_every=0", "template=alpaca", "engine=local", "hydra.sweep.dir=here",
    ]  # fmt: skip


@pytest.mark.exhaustive
def test_every_combination(words: list[str], tmp_path: Path) -> None:
    done = stepdpo("train", "-m", "algo=dpo,tdpo", "level=step,instance", *words, cwd=tmp_path)
    assert done.code == 0, done.said
    jobs = sorted(path for path in (tmp_path / "here").iterdir() if path.is_dir())
    assert [path.name for path in jobs] == ["job-0", "job-1", "job-2", "job-3"]
    lines = [metrics(job) for job in jobs]
    assert all(len(job) == 2 for job in lines)
    assert ["kl/chosen" in job[0] for job in lines] == [False, False, True, True]
    longer = [job[0]["logps/chosen"] for job in lines]
    assert longer[1] < longer[0]
    assert all((job / "model" / "config.json").is_file() for job in jobs)
    table = done.out[done.out.index("4 jobs in ") :]
    for number, (algo, level) in enumerate((a, b) for a in ("dpo", "tdpo") for b in ("step", "instance")):
        assert f"job-{number}   algo={algo} level={level} " in table
    assert table.count("  ok (") == 4
    assert not (tmp_path / "runs").exists()


@pytest.mark.exhaustive
def test_a_failing_job_does_not_stop_the_others(words: list[str], tmp_path: Path) -> None:
    wild = ("optim.warmup=0", "optim.clip=0")
    done = stepdpo("train", "-m", "optim.lr=1e30,1e-4", "seed=0", *words, *wild, cwd=tmp_path)
    assert done.code == 5, done.said
    assert "lower optim.lr" in done.err
    assert not (tmp_path / "here" / "job-0" / "model").exists()
    assert (tmp_path / "here" / "job-1" / "model" / "config.json").is_file()
    table = done.out[done.out.index("2 jobs in ") :].splitlines()
    assert table[1].startswith("  job-0   optim.lr=1e+30 seed=0 ")
    assert "exit 5: the loss of update " in table[1] or "exit 5: the gradient's norm at update " in table[1]
    assert table[2].startswith("  job-1   optim.lr=0.0001 seed=0 ")
    assert "  ok (" in table[2]


@pytest.mark.exhaustive
def test_ctrl_c_ends_the_sweep(words: list[str], tmp_path: Path) -> None:
    long = [word for word in words if not word.startswith("max_steps")]
    folder = tmp_path / "here" / "job-0"
    words = ["train", "-m", "seed=1,2", *long, "epochs=900"]
    done = signalled(signal.SIGINT, *words, folder=folder, after=2, cwd=tmp_path)
    assert done.code == 130, done.out
    assert not (tmp_path / "here" / "job-1").exists()
    assert "1 jobs in " in done.out
    assert "exit 130: stopped by SIGINT; a checkpoint was saved" in done.out
