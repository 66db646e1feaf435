"""The runs of `benchmarks.decoding`: each is one command of `stepdpo`, and one that has finished is not run again."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.runtime.atomic_io import read_json, write_json

TASK = "tinymath"
TOKENS = 256
"""At most, of a response; the longest are half as long."""
POLICY = ("model=tinymath", f"task={TASK}")
TREES = (
    "pairs", "pairs=mcts", *POLICY, "temperature=1.0", f"max_tokens={TOKENS}", "sampler.device=cpu",
)  # fmt: skip
PAIRS = ("pairs", "pairs=siblings", *POLICY, f"max_tokens={TOKENS}", "pairs.baselines=true", "sampler.device=cpu")
TRAINING = ("train", "model=tinymath", "engine=local", "guard=none", "eval_every=200", "save_every=0", "log_every=100")
HEAD = ("algo=value", "algo.weight=1", "level=instance", "batch.pairs=16", "batch.group=problem")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    searched: int
    """Problems whose trees value heads are trained on."""
    epochs: int
    """Over these trees."""
    heldout: int
    """Problems that settings are chosen by."""
    sampled: int
    """Problems whose solutions preference losses are trained on."""
    problems: int
    """That are answered, greedily and by samples; none of the others is among them."""
    beamed: int
    """Of these the first so many, by beam search."""
    walked: int
    """By tree search."""
    greedy: int
    """That are answered greedily beside `generate`."""
    alone: int
    """Of these, how many `generate` answers one by one."""
    rounds: int
    """Of the two, interleaved."""
    inspected: int
    """Problems whose wrong solutions are looked through for their first wrong step."""
    cells: int = 4
    """Of a grid, the first so many."""


FULL = Size(
    searched=600, epochs=4, heldout=200, sampled=100, problems=400, beamed=200, walked=50, greedy=1000, alone=50,
    rounds=3, inspected=200, cells=2,
)  # fmt: skip
QUICK = Size(
    searched=8, epochs=1, heldout=8, sampled=8, problems=8, beamed=4, walked=2, greedy=24, alone=6,
    rounds=1, inspected=8, cells=1,
)  # fmt: skip


def run(folder: Path, name: str, *words: str) -> Path:
    """One command, with what it prints in a log beside the run and what it cost in `NAME.cost.json`, written last."""
    cost = folder / f"{name}.cost.json"
    if not cost.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{name}.log"
        began, busy = time.monotonic(), _busy()
        with log.open("w") as out:
            command = [sys.executable, "-m", "stepdpo", *words, f"runs={folder}", f"run={name}", "force=true"]
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment()).returncode
        if code:
            tail = "\n".join(log.read_text().splitlines()[-20:])
            raise SystemExit(f"{shlex.join(['stepdpo', *words])}\nfailed with code {code}:\n{tail}")
        write_json(cost, {"seconds": round(time.monotonic() - began, 1), "cpu": round(_busy() - busy, 1)})
        print(f"  {name:<28}{_busy() - busy:6.0f} CPU s", flush=True)
    return folder / name


def _busy() -> float:
    """CPU seconds of all commands that have ended: on a machine that others use too, they say more than a clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment() -> Mapping[str, str]:
    """One core, and nothing from the network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def cost_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = read_json(run.parent / f"{run.name}.cost.json")
    return found


def summary_of(run: Path) -> dict[str, Any]:
    """Of the one evaluation of a run."""
    (path,) = (run / "eval").rglob("summary.json")
    found: dict[str, Any] = read_json(path)
    return found


def evaluated(folder: Path, name: str, model: str, words: Sequence[str], asked: Sequence[str]) -> Path:
    return run(folder, name, "eval", f"model={model}", f"task={TASK}", *words, f"decode.max_tokens={TOKENS}", *asked)


def trees(folder: Path, size: Size) -> Path:
    return run(folder, "trees", *TREES, f"limit={size.searched}")


def head(folder: Path, name: str, size: Size, words: Sequence[str]) -> Path:
    """A run of `algo=value` on the trees."""
    data = ("dataset=trees", f"dataset.path={trees(folder, size)}", f"epochs={size.epochs}")
    return run(folder, name, *TRAINING, *HEAD, *data, *words)


def pairs(folder: Path, size: Size) -> Path:
    return run(folder, "pairs", *PAIRS, f"limit={size.sampled}")


def preferring(folder: Path, name: str, size: Size, words: Sequence[str], file: str) -> Path:
    """A run of a preference loss on the base's samples."""
    data = f"dataset={pairs(folder, size) / file}.jsonl"
    settings = ("batch.pairs=32", "max_steps=15", "dataset.heldout=0")
    return run(folder, name, *TRAINING, *settings, data, *words)
