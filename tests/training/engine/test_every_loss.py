"""Every loss that ships, by name: it resumes bit for bit, and two processes under every ZeRO stage follow one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import labelled
from support.commands import metrics
from support.trainings import Job, Runs

from stepdpo.core.package_data import conf

LOSSES = sorted(path.stem for path in (conf() / "algo").glob("*.yaml"))
STAGES = range(4)
RECIPES = {name: (f"algo={name}", "level=instance", "batch.group=problem") for name in LOSSES} | {
    "dpo-nll": ("algo=dpo", "algo.sft_weight=1"),
    "tdpo-rest": ("algo=tdpo", "algo.sft_weight=1", "algo.sft_scope=rest"),
    "pqm": ("algo=prm", "algo.form=pqm", "level=instance"),
    "value-frozen": ("algo=value", "algo.trunk=frozen", "algo.sft=0", "level=instance"),
    "svpo-step": ("algo=svpo",),
}
SAMPLE = {"tpo", "stepkto", "svpo-step", "tdpo-rest", "simpo"}
"""Of each kind one, among the tests that every change passes."""
STATELESS = ("algo.dropout=0",)
"""Dropout differs from process to process, as the passes do."""
COMMON = ("batch.pairs=3", "epochs=2", "optim.lr=1e-3", "log_every=1", "eval_every=0", "template=alpaca", "~recipe")


def recipe(name: str) -> tuple[str, ...]:
    with_head = any(word in RECIPES[name][0] for word in ("=value", "=prm", "=svpo"))
    return (*RECIPES[name], *(STATELESS if with_head else ()))


def write(folder: Path, model: Path) -> Runs:
    data = labelled.write(folder / "preferences.jsonl")
    given = ("dataset=jsonl", f"dataset.path={data}", "model=pretrained", f"model.path={model}")
    return Runs(folder, [*COMMON, *given])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Runs:
    return write(tmp_path_factory.mktemp("losses"), tiny_model)


def files(folder: Path) -> dict[str, bytes]:
    """All of a model that was trained."""
    return {path.name: path.read_bytes() for path in (folder / "model").glob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.exhaustive) for name in RECIPES]
)
def test_it_resumes_bit_for_bit(runs: Runs, name: str) -> None:
    """From the checkpoint in the middle; dropout goes on where it was."""
    words = (*RECIPES[name], "save_every=2", "max_steps=4", "keep=9")
    whole = runs.local(name, *words)
    cut = runs.cut(f"{name}-cut", name, "model")
    assert runs.go_on(cut) == (0, "")
    assert metrics(cut) == metrics(whole)
    assert files(cut) == files(whole)
    heads = [word for word in ("value", "prm", "pqm", "svpo") if name.startswith(word)]
    assert ("value_head.safetensors" in files(whole)) == bool(heads)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Runs:
    runs = write(tmp_path_factory.mktemp("sharded"), tiny_model)
    jobs = []
    for name in RECIPES:
        words = (*recipe(name), "save_every=0", "max_steps=3", "batch.tokens=300")
        runs.local(name, *words)
        for stage in STAGES:
            runs.write(f"{name}-{stage}", *words, "engine=zero", "engine.dtype=float32", f"engine.stage={stage}")
            jobs.append(Job(f"{name}-{stage}"))
    done = runs.together(jobs, patience=2400)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(2700)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_follow_one(sharded: Runs, name: str, stage: int) -> None:
    answer = sharded.outcome(f"{name}-{stage}")
    assert answer["code"] == 0, answer["message"]
    one, two = metrics(sharded.root / name), metrics(sharded.root / f"{name}-{stage}")
    assert len(one) == len(two)
    assert sum("loss" in line for line in one) == 3  # where a chosen side fell far, the guard has a line too
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            counted = "accurac" in key or key in ("ranking/ordered", "chosen_fell", "penalty/active")
            if key in ("tokens_per_second", "pairs_per_second", "grad_norm") or counted:
                continue  # of numbers near 0, signs are rounding
            assert theirs[key] == pytest.approx(value, rel=2e-4, abs=5e-4), (ours["step"], key)
