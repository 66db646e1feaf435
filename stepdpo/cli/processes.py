"""Starting the processes that do the work, and learning how they ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from stepdpo.cli import multinode
from stepdpo.cli.job_result import EXIT_FILE, ExitCode, JobResult, take_result
from stepdpo.core.config import own_folders
from stepdpo.runtime.devices import gpus
from stepdpo.runtime.disk_space import low
from stepdpo.runtime.parent import end_with
from stepdpo.runtime.run_lock import command_id
from stepdpo.runtime.worker_lock import Worker, alive, unaccounted

WORKER = "stepdpo.cli.worker"
GRACE = 1.0
"""Seconds that workers whose launcher is gone have to end by themselves, before they are told to."""


def start(verb: str, folder: Path, engine: Mapping[str, Any], resume: bool = False) -> JobResult:
    """Run a verb on a run folder in fresh processes and wait; returns what `exit.json` says.

    Ctrl-C and SIGTERM reach the workers, which save and stop; the result then carries 130 or 143. The workers of this
    machine end with this process, however it ends.
    """
    (folder / EXIT_FILE).unlink(missing_ok=True)  # of a command that was killed before it could read it
    own = [word for place in own_folders() for word in ("--config-dir", str(place))]
    words = [WORKER, verb, str(folder), "--command", command_id(folder), *(["--resume"] if resume else []), *own]
    signals = folder / multinode.SIGNALS_FILE if several_machines(engine) else None
    environment = _environment(engine, signals)
    command = _command(words, engine, environment)
    if signals:
        signals.unlink(missing_ok=True)
        hostfile = str(engine["hostfile"])
        multinode.check_ready(multinode.read_hosts(Path(hostfile)), hostfile, [Path(sys.executable), folder])
        environment = multinode.with_ssh(environment)
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL if signals else None, start_new_session=True,
        preexec_fn=end_with(os.getpid()),
    )  # fmt: skip
    with _passing_on_signals(process, folder, signals) as passed:
        code = process.wait()
        launcher_died = code < 0 and count(engine) > 1 and not signals
        _wait_for_orphans(folder, 60.0 * float(engine.get("timeout_minutes", 1)))
    if signals:
        signals.unlink(missing_ok=True)
    lost = unaccounted(folder)
    result = take_result(folder, signal=passed[0] if passed else 0)
    if not result:
        return _without_a_word(code, passed, folder, lost)
    if launcher_died and not result.ok:
        result = replace(result, message=f"{result.message} (the workers' launcher was killed by signal {-code})")
    if result.lost_peers and lost:
        result = replace(result, message=f"{result.message}; no answer from {_names(lost)}")
    return result


def _environment(engine: Mapping[str, Any], signals: Path | None) -> dict[str, str]:
    """Of the workers; what depends on the machine is left to each where there are several."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "true"}
    environment["PYTHONSAFEPATH"] = "1"  # a yaml.py in the current folder must not be taken for the library
    environment.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve every other process
    if signals:
        environment[multinode.SIGNALS] = str(signals)
    elif not gpus():
        environment.setdefault("DS_ACCELERATOR", "cpu")
        # Every process would otherwise start a thread a core, and they would wait for each other.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count(engine))))
    return environment


def _wait_for_orphans(folder: Path, patience: float) -> None:
    """Let no worker outlive what was started: where DeepSpeed's launcher was killed, they are told to save and stop."""
    began, told = time.monotonic(), False
    while alive(folder):
        waited = time.monotonic() - began
        here = [worker for worker in unaccounted(folder) if worker.here]
        if waited > patience:
            _signal(here, signal.SIGKILL)
        elif waited > GRACE and not told:
            _signal(here, signal.SIGTERM)
            told = True
        if waited > patience + GRACE:
            return  # of another machine, or held by the kernel: the lock goes on saying so
        time.sleep(0.1)


def _signal(workers: Sequence[Worker], signum: int) -> None:
    for worker in workers:
        with suppress(psutil.Error):
            process = psutil.Process(worker.pid)
            if _is_worker(process):  # and not whatever has its number now
                process.send_signal(signum)


def _names(lost: Sequence[Worker]) -> str:
    return ", ".join(str(worker) for worker in lost)


def _without_a_word(code: int, passed: list[int], folder: Path, lost: Sequence[Worker] = ()) -> JobResult:
    """What to say of workers that left no exit.json."""
    if passed:
        name = signal.Signals(passed[0]).name
        return JobResult(128 + passed[0], f"stopped by {name} before it could save", signal=passed[0])
    # A worker that signal 9 killed ends with -9; DeepSpeed's launcher in between exits with that as a byte, 256 - 9.
    fatal = -code if code < 0 else 256 - code if code > 192 else 0
    if low(folder):
        return JobResult(ExitCode.FAILED, f"no space left in {folder}, not even for a worker's last words")
    who = f"a worker, {_names(lost)}," if lost else "a worker"
    if not fatal:
        return JobResult(code or ExitCode.FAILED, f"{who} died without a word")
    killed_for_memory = " (out of memory?)" if fatal == signal.SIGKILL else ""
    return JobResult(128 + fatal, f"{who} was killed by signal {fatal}{killed_for_memory}")


def count(engine: Mapping[str, Any]) -> int:
    """How many processes this machine runs: what is asked for, else one a visible GPU, else one."""
    if engine.get("hostfile") and len(hosts := multinode.read_hosts(Path(engine["hostfile"]))) == 1:
        return next(iter(hosts.values()))
    requested = int(engine.get("processes", 1))
    if requested or engine.get("device") == "cpu":
        return requested or 1
    return max(1, len(gpus()))


def several_machines(engine: Mapping[str, Any]) -> bool:
    """Whether other machines than this one take part."""
    return bool(engine.get("hostfile")) and multinode.include_others(multinode.read_hosts(Path(engine["hostfile"])))


def _command(words: list[str], engine: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """What runs `words`, a module and its arguments: as one process, or under DeepSpeed's launcher."""
    port = int(engine.get("master_port") or 0) or _free_port()
    if several_machines(engine):
        hostfile = str(engine["hostfile"])
        return multinode.command(words, multinode.read_hosts(Path(hostfile)), hostfile, port, environment)
    if count(engine) == 1:
        return [sys.executable, "-m", *words]
    world = multinode.world_info({"localhost": count(engine)})
    launcher = ["deepspeed.launcher.launch", f"--world_info={world}", f"--master_port={port}", "--no_local_rank", "-q"]
    return [sys.executable, "-m", *launcher, "--module", *words]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes], folder: Path, file: Path | None) -> Iterator[list[int]]:
    """Hand signals to the workers themselves: DeepSpeed's launcher would kill them 30 s later, saved or not.

    They run in a session of their own, so that a terminal's Ctrl-C comes this way too. Those of several machines read
    signals from `file`. Yields what was passed on.
    """
    passed: list[int] = []

    def pass_on(signum: int, _: object) -> None:
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum  # a closed terminal: save and stop
        passed.append(signum)
        if file:
            multinode.send(file, signum)
            return
        for worker in _workers(process.pid):
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signum)
        if process.returncode is not None:  # the launcher is gone, and they are no more below it
            _signal([worker for worker in unaccounted(folder) if worker.here], signum)

    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python sets no handlers
    expected = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if in_main_thread else ()
    # One that is ignored stays so: under nohup a closed terminal must not end the run.
    caught = [signum for signum in expected if signal.getsignal(signum) != signal.SIG_IGN]
    before = {signum: signal.signal(signum, pass_on) for signum in caught}
    try:
        yield passed
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _workers(pid: int) -> list[psutil.Process]:
    """The processes below `pid` that are workers; `pid` itself while none has started."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [p for p in [top, *top.children(recursive=True)] if _is_worker(p)] or [top]
    return []


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()
        return WORKER in words and not any(word.startswith("deepspeed.launcher") for word in words)
    return False
