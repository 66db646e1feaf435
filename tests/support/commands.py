"""The command line and its workers, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOCKED = {"tokens_per_second", "pairs_per_second"}
"""Metrics that tell the time."""
PATIENCE = 280.0
"""Seconds until something that should happen is taken not to; only a broken test waits so long."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def environment(**more: str) -> dict[str, str]:
    """This process's, without keys and launchers, and with this source in front."""
    dropped = ("WANDB_", "HF_TOKEN", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "NO_COLOR", "FORCE_COLOR", "COV_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    source = str(Path(__file__).parents[2])
    return {**kept, "PYTHONPATH": f"{source}:{source}/tests", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def stepdpo(*words: str | Path, cwd: Path, **more: str) -> Done:
    """`stepdpo WORDS`, waited for."""
    command = [sys.executable, "-m", "stepdpo", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def start(*words: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """`stepdpo WORDS`, running; stdout and stderr are one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "stepdpo", *map(str, words)], cwd=cwd, env=environment(**more), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> Done:
    """Wait for a started command."""
    out, _ = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, out, "")


def until(true: Callable[[], Any], process: subprocess.Popen[str] | None = None, every: float = 0.02) -> None:
    """Wait for something that another process brings about, and look `every` so many seconds."""
    end = time.monotonic() + PATIENCE
    while not true():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended first: {ended(process).out}")
        assert time.monotonic() < end, "it did not happen"
        time.sleep(every)


def signalled(signum: int, *words: str | Path, folder: Path, after: int, cwd: Path, **more: str) -> Done:
    """A training that is sent a signal once `metrics.jsonl` has a line of update `after`."""
    process = start(*words, cwd=cwd, **more)
    try:
        until(lambda: any(line["step"] >= after for line in metrics(folder)), process)
        process.send_signal(signum)
        return ended(process)
    finally:
        process.kill()


def metrics(folder: Path, clocked: bool = False) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl, without what the clock says."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if clocked or k not in CLOCKED} for line in lines]


def tree(folder: Path) -> set[str]:
    """Names of everything below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def words(settings: dict[str, Any]) -> Sequence[str]:
    return [f"{key}={value}" for key, value in settings.items()]


HELD = (signal.SIGINT, signal.SIGTERM)
