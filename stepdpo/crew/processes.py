"""One process a device on this machine, without Ray.

The workers are plain subprocesses and not `multiprocessing` ones, which would import the caller's main module again in
each of them; what they are given to use is in their environment before they import anything.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.ranges import at_least
from stepdpo.crew.dispatch import Died, Dispatcher, Event
from stepdpo.crew.protocols import R, T, WorkerSpec
from stepdpo.runtime.devices import cores, gpus

CHILD = "stepdpo.crew.process_worker"
ROOT = str(Path(__file__).resolve().parents[2])
CLOSING = 10.0
"""Seconds that workers have to close what they opened, before they are killed."""
LOOK = 1.0
"""Seconds after which it is looked whether a silent worker is still there: a process of its own may hold its end of the
connection open, and so hide its death."""


@dataclass(frozen=True)
class ProcessesExecutor:
    """Workers on this machine, each with a model of its own: one a GPU, or one a processor core."""

    workers: int | None = None
    """How many; None for one a visible GPU (of as many as the sampler takes), without any GPU for one every `threads`
    cores. More of them than there are GPUs share these. A sampler that asks a server has one, unless told."""
    threads: int | None = None
    """Threads of each; None for an equal share of the cores, and 1 where `workers` is not given and there is no GPU."""
    retries: int = 3
    """How often a group is given to another worker after one died over it."""

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers, threads=self.threads)
        at_least(0, retries=self.retries)

    @contextmanager
    def open(self, spec: WorkerSpec[T, R]) -> Iterator[Dispatcher[T, R, _Process]]:
        """Describe the workers; they are started, and load the model, when there are groups for them."""
        visible = gpus()
        count, threads = self.room(spec.devices, len(visible), cores())
        share = devices_of_each(visible, spec.devices or 0, count)
        each = (_many(len(share[0]), "GPU"), _many(threads, "thread"))
        print(f"{_many(count, 'process', 'processes')}, each with {' and '.join(filter(None, each))}", flush=True)
        workers = _Processes(pickle.dumps(spec), share, threads)
        try:
            # One group at a time: the next one is sent within a millisecond, and none waits behind another.
            yield Dispatcher(workers, count, 1, self.retries)
        finally:
            workers.end()

    def room(self, devices: int | None, visible: int, cores: int) -> tuple[int, int]:
        """(workers, threads of each) where a worker wants so many GPUs of those `visible`. UserError for too few."""
        if devices and visible and devices > visible:
            raise UserError(f"crew=processes: a worker takes {devices} GPUs, and {visible} are visible")
        by_cores = max(1, cores // (self.threads or 1))
        fitting = 1 if devices is None else visible // devices if devices and visible else by_cores
        count = self.workers or fitting
        return count, self.threads or max(1, cores // count)


def devices_of_each(visible: Sequence[str], wanted: int, count: int) -> list[tuple[str, ...]]:
    """The GPUs of each of `count` workers that want so many; further ones begin anew with the first."""
    sets = [tuple(visible[at : at + wanted]) for at in range(0, len(visible) - wanted + 1, wanted)] if wanted else []
    return [sets[number % len(sets)] if sets else () for number in range(count)]


def _many(number: int, one: str, more: str = "") -> str:
    return "" if not number else f"1 {one}" if number == 1 else f"{number} {more or one + 's'}"


@dataclass(eq=False)
class _Process:
    """A worker as this process sees it."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    told: bool = False
    """Whether it knows what kind of worker it is."""


@dataclass
class _Processes:
    """The workers, for the dispatcher."""

    spec: bytes
    devices: Sequence[tuple[str, ...]]
    """Of each."""
    threads: int
    alive: list[_Process] = field(default_factory=list)

    def start(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        paths = [ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve every other process
        }
        if self.devices[number]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[number])
        with theirs:
            command = [sys.executable, "-P", "-m", CHILD, str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
            )  # fmt: skip
        worker = _Process(number, process, Connection(ours.detach()))
        self.alive.append(worker)
        return worker

    def give(self, worker: _Process, group: Sequence[Any]) -> None:
        # A worker that is dead by now is found to be so when it is waited for.
        with suppress(OSError):
            if not worker.told:
                worker.connection.send(sys.path)
                worker.connection.send_bytes(self.spec)
                worker.told = True
            worker.connection.send(group)

    def wait(self, workers: Sequence[_Process]) -> tuple[_Process, Event]:
        by_connection = {worker.connection: worker for worker in workers}
        while True:
            for spoken in wait(list(by_connection), LOOK):
                assert isinstance(spoken, Connection)
                return by_connection[spoken], _received(by_connection[spoken])
            for worker in workers:
                if worker.process.poll() is not None and not worker.connection.poll():
                    return worker, Died(_how(worker.process))

    def bury(self, worker: _Process) -> None:
        self.alive.remove(worker)
        worker.connection.close()
        if worker.process.poll() is None:  # it has closed its end, and hangs
            worker.process.kill()
        worker.process.wait()

    def dismiss(self, workers: Sequence[_Process]) -> None:
        for worker in workers:
            worker.connection.close()
        _wait(workers)

    def end(self) -> None:
        """End every worker that is left, whatever it is doing."""
        for worker in self.alive:
            worker.connection.close()
            if worker.process.poll() is None:
                worker.process.terminate()
        _wait(self.alive)
        for worker in self.alive:
            worker.process.kill()
            worker.process.wait()
        self.alive.clear()


def _received(worker: _Process) -> Event:
    """What a worker has said. Raises what it raised."""
    try:
        said = worker.connection.recv()
    except (EOFError, OSError):
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(CLOSING)
        return Died(_how(worker.process))
    if isinstance(said, tuple):
        error, trace = said
        raise error from (None if isinstance(error, UserError | Outage) else RuntimeError(f"in a worker:\n{trace}"))
    event: Event = said
    return event


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    if code is None:
        return "It says nothing any more."
    if code >= 0:
        return f"Its exit code was {code}."
    return f"It was killed by signal {-code}{' (out of memory?)' if code == -9 else ''}."


def _wait(workers: Sequence[_Process]) -> None:
    """For all of them to end, for a while."""
    until = time.monotonic() + CLOSING
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))
