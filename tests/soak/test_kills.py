"""Trainings killed without warning, over and over: what is left goes on to the very same bytes.

`make soak` runs it whole: 104 kills. One more is among the slow tests.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from support.commands import ended, metrics, start, stepdpo, tree, until

SEED = 20_261
SAVE_EVERY = 3
PATIENCE = 120
"""Seconds that processes whose command was killed have to end by themselves."""


@dataclass(frozen=True)
class Place:
    """Where a training runs."""

    name: str
    engine: tuple[str, ...]


def zero(stage: int, processes: int) -> Place:
    words = ("engine=zero", "engine.dtype=float32", f"engine.stage={stage}", f"engine.processes={processes}")
    return Place(f"zero{stage}-{processes}", words)


LOCAL = Place("local", ("engine=local",))
EVERYTHING = "everything"
"""As when a machine loses its power."""
VICTIMS = (EVERYTHING, EVERYTHING, "the command", "the first process below it", "a process without children")
"""Who dies. Below a command lie the workers, or DeepSpeed's launcher and below it the workers."""


def words(place: Place, preferences: Path, model: Path, updates: int) -> list[str]:
    return [
        "train", f"model={model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=900", f"max_steps={updates}", "optim.lr=1e-3", "log_every=1", "eval_every=5",
        f"save_every={SAVE_EVERY}", "keep=2", "template=alpaca", "run=x", *place.engine,
    ]  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A command and all that it started, the command first."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    return []


def victims(members: list[psutil.Process], who: str, rng: random.Random) -> list[psutil.Process]:
    if who == "the command":
        return members[:1]
    if who == "the first process below it":
        return members[1:2]
    if who == "a process without children":
        with suppress(psutil.NoSuchProcess):
            return [rng.choice([one for one in members if not one.children()])]
    return members


def kill(process: subprocess.Popen[str], run: Path, rng: random.Random) -> str:
    """Kill somebody of a running command a few updates on, and wait until all of it is gone; returns whom."""
    wanted = last_update(run) + rng.randint(1, 2 * SAVE_EVERY)
    until(lambda: last_update(run) >= wanted, process, every=0.005)
    time.sleep(rng.random() * 0.1)  # anywhere: within an update, or while a checkpoint is written
    members, who = family(process), rng.choice(VICTIMS)
    for one in victims(members, who, rng):
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    done = ended(process)
    assert done.code != 0, f"{who}: {done.said}"
    _, alive = psutil.wait_procs([one for one in members if one.pid != process.pid], timeout=PATIENCE)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], f"{who}: left behind"
    return who


def last_update(run: Path) -> int:
    return max((line["step"] for line in metrics(run)), default=0)


def survives(place: Place, kills: int, preferences: Path, model: Path, root: Path) -> None:
    """A run killed `kills` times on its way ends with the bytes of one that was left alone."""
    rng = random.Random(f"{SEED}/{place.name}")
    # Each kill comes up to twice SAVE_EVERY updates on, and as many again may be done before it strikes.
    given = words(place, preferences, model, updates=4 * SAVE_EVERY * kills)
    whole, killed = root / "whole", root / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    alone = stepdpo(*given, cwd=whole)
    assert alone.code == 0, alone.said
    run = killed / "runs" / "x"
    told: list[str] = []
    for number in range(kills):
        process = start(*given, *(["resume=true"] if number else []), cwd=killed)
        try:
            told.append(kill(process, run, rng))
        finally:
            process.kill()
    last = stepdpo(*given, "resume=true", cwd=killed)
    assert last.code == 0, (told, last.said)
    assert metrics(run) == metrics(whole / "runs" / "x"), told
    assert tree(run) == tree(whole / "runs" / "x"), told
    for path in (whole / "runs" / "x" / "model").iterdir():
        assert (run / "model" / path.name).read_bytes() == path.read_bytes(), (told, path.name)
    print(f"{place.name}: {kills} kills ({', '.join(f'{told.count(who)} {who}' for who in dict.fromkeys(told))})")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_one_kill(preferences: Path, tiny_model: Path, tmp_path: Path) -> None:
    survives(LOCAL, 1, preferences, tiny_model, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("place", "kills"),
    [(LOCAL, 16), *((zero(stage, processes), 11) for stage in range(4) for processes in (1, 2))],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_kills(place: Place, kills: int, preferences: Path, tiny_model: Path, tmp_path: Path) -> None:
    survives(place, kills, preferences, tiny_model, tmp_path)
