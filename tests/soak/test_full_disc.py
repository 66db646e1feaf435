"""A disc without room, at every place where something large is written: said in one line, and gone on from.

A small file system in memory stands for the disc; only root can make one, so these are skipped for others.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import metrics, stepdpo, tree
from support.pairs_runs import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")]


@pytest.fixture
def disc(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disc"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(disc: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disc], check=True)


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "batch.pairs=8", "max_steps=4",
        "optim.lr=1e-3", "log_every=1", "eval_every=0", "template=alpaca", "engine=local", "run=x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "size", "said"),
    [
        pytest.param("save_every=2", "96k", "the checkpoint of update 2: no space left", marks=pytest.mark.exhaustive),
        pytest.param("save_every=0", "96k", "the finished model", marks=pytest.mark.exhaustive),
        pytest.param("save_every=0", "8k", "no space", marks=pytest.mark.exhaustive),
    ],
)
def test_the_run_folder(place: str, size: str, said: str, words: list[str], disc: Path, tmp_path: Path) -> None:
    resize(disc, size)
    done = stepdpo(*words, place, f"runs={disc}", cwd=tmp_path)
    assert done.code == 1, done.said
    assert said in done.err
    assert "Traceback" not in done.err
    assert not [name for name in tree(disc) if name.endswith(".tmp")]
    resize(disc, "64m")
    again = ("resume=true",) if (disc / "x" / "config.yaml").exists() else ()
    done = stepdpo(*words, place, f"runs={disc}", *again, cwd=tmp_path)
    assert done.code == 0, done.said
    alone = stepdpo(*words, place, "runs=alone", cwd=tmp_path)
    assert alone.code == 0, alone.said
    assert metrics(disc / "x") == metrics(tmp_path / "alone" / "x")
    weights = [(root / "x" / "model" / "model.safetensors").read_bytes() for root in (disc, tmp_path / "alone")]
    assert weights[0] == weights[1]


def test_the_cache(words: list[str], disc: Path, tmp_path: Path) -> None:
    resize(disc, "8k")
    done = stepdpo(*words, cwd=tmp_path, STEPDPO_HOME=str(disc))
    assert done.code in (1, 2), done.said
    assert "no space left" in done.err
    assert "Traceback" not in done.err
    assert not list(disc.rglob("*.tmp"))
    assert not (tmp_path / "runs").exists()


ANSWERS = {
    "pairs": (*SMALL, "pairs=siblings"),
    "eval": ("model=tinymath", "task=tinymath", "task.limit=60"),
}
"""Words of the verbs whose work is kept problem by problem."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("verb", list(ANSWERS))
def test_problems(verb: str, disc: Path, tmp_path: Path) -> None:
    """What is finished stays, and the same command goes on from there to the same bytes."""
    result = {"pairs": "preferences.jsonl", "eval": "attempts.jsonl"}[verb]
    command = (verb, *ANSWERS[verb], "run=x")
    alone = stepdpo(*command, "runs=alone", cwd=tmp_path)
    assert alone.code == 0, alone.said
    whole = next((tmp_path / "alone").rglob(result))
    resize(disc, "32k")
    done = stepdpo(*command, f"runs={disc}", cwd=tmp_path)
    assert done.code == 1, done.said
    assert "no space left" in done.err
    assert "Traceback" not in done.err
    resize(disc, "64m")
    done = stepdpo(*command, f"runs={disc}", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert verb == "eval" or "finished before" in done.out  # an evaluation answers all of these at once
    assert next(disc.rglob(result)).read_bytes() == whole.read_bytes()
