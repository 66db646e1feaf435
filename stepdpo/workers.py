"""Starting the processes that do the work, and learning how they ended."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXIT = "exit.json"
"""Written by process 0 of a worker: {"code", "message", "outcome"}."""

OK, FAILED, MEND, DIVERGED = 0, 1, 2, 5


def start(verb: str, folder: Path, engine: Mapping[str, Any], resume: bool = False) -> dict[str, Any]:
    """Run a verb on a run folder in fresh processes and wait; returns what `exit.json` says.

    Ctrl-C and SIGTERM reach the workers, which save and stop; the answer then carries 130 or 143.
    """
    (folder / EXIT).unlink(missing_ok=True)
    words = ["stepdpo.worker", verb, str(folder), *(["--resume"] if resume else [])]
    command = _command(words, engine)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "true"}
    environment.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve every other process
    if not _gpus():
        environment.setdefault("DS_ACCELERATOR", "cpu")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes(engine))))
    process = subprocess.Popen(command, env=environment)
    with _passing_on_signals(process):
        code = process.wait()
    if (folder / EXIT).is_file():
        answer: dict[str, Any] = json.loads((folder / EXIT).read_text())
        (folder / EXIT).unlink()
        return answer
    return {
        "code": 128 - code if code < 0 else code or FAILED,
        "message": "a worker died without a word",
        "outcome": {},
    }


def processes(engine: Mapping[str, Any]) -> int:
    """How many processes this machine runs: what is asked for, else one a visible GPU, else one."""
    wanted = int(engine.get("processes", 1))
    if wanted or engine.get("device") == "cpu":
        return wanted or 1
    return max(1, _gpus())


def _gpus() -> int:
    """Visible CUDA devices, without importing torch."""
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return devices if visible is None else min(devices, len([d for d in visible.split(",") if d.strip()]))


def _command(words: list[str], engine: Mapping[str, Any]) -> list[str]:
    hostfile = engine.get("hostfile")
    count = processes(engine)
    port = int(engine.get("master_port") or 0) or _free_port()
    if hostfile:
        launcher = ["deepspeed.launcher.runner", f"--hostfile={hostfile}", f"--master_port={port}", "--no_local_rank"]
        return [sys.executable, "-m", *launcher, "--module", *words]
    if count == 1:
        return [sys.executable, "-m", *words]
    world = base64.urlsafe_b64encode(json.dumps({"localhost": list(range(count))}).encode()).decode()
    launcher = ["deepspeed.launcher.launch", f"--world_info={world}", f"--master_port={port}", "--no_local_rank", "-q"]
    return [sys.executable, "-m", *launcher, "--module", *words]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A terminal sends Ctrl-C to the workers as well, so here it is only waited out; SIGTERM is handed on."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None if os.isatty(0) else process.send_signal(2)),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM)),
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
