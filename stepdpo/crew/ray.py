"""Many workers on a Ray cluster (Moritz et al. 2018, arXiv 1712.05889): the owner of Ray.

Every worker is an actor that holds a model of its own and works on whole groups of problems, the same groups that one
process would form, so that its batches and with them its results are the same ones. Only this process writes results.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.ranges import at_least
from stepdpo.crew.dispatch import Arrived, Died, Dispatcher, Event, GroupDone, Ready
from stepdpo.crew.protocols import R, T, TaskResult, Worker, WorkerSpec

STORE = 256 * 2**20
"""Bytes that a local Ray keeps free for what is sent about: problems and pairs are small."""
CLOSING = 10.0
"""Seconds that workers have to close what they opened. All results are here by then: nothing hangs on it."""
REASON = 400
"""Characters of Ray's reasons that are shown: it writes a page of what might have happened."""
NEEDS_RAY = "crew=ray needs Ray: pip install 'stepdpo[ray]'"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
"""Set before Ray is imported: nothing is reported to anyone, and neither advice nor its daemons' words are printed."""


@dataclass(frozen=True)
class RayExecutor:
    """Workers on the machines of a cluster, or on this one."""

    workers: int | None = None
    """How many; None for as many as the cluster has room for."""
    cpus: int = 1
    """Processor cores a worker, and its number of threads."""
    gpus: float | None = None
    """GPUs a worker; None for one where the cluster has any."""
    address: str | None = None
    """Of a running cluster, `auto` to find it; None for a local one of this run's own."""
    ahead: int = 2
    """Groups a worker has at a time: the one it works on and those that are prefetched."""
    retries: int = 3
    """How often a group is given to another worker after one died over it."""

    package: ClassVar[tuple[str, str]] = ("ray", NEEDS_RAY)
    """What is imported once it is opened, and what is said where that is missing."""

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers, cpus=self.cpus, ahead=self.ahead)
        at_least(0, retries=self.retries, gpus=self.gpus)

    @contextmanager
    def open(self, spec: WorkerSpec[T, R]) -> Iterator[Dispatcher[T, R, _Handle]]:
        """Join the cluster, or start one, and describe the workers; they load the model when they are given a group."""
        os.environ.update(QUIET)
        ray = _ray()
        self._join(ray)
        try:
            count, gpus = self._room(ray.cluster_resources(), spec.devices)
            variables = {**QUIET, "OMP_NUM_THREADS": str(self.cpus), "OMP_WAIT_POLICY": "PASSIVE"}
            # Not restarted by Ray, which does not know what has arrived of a group: the dispatcher replaces a dead one.
            kind = ray.remote(_Worker).options(
                num_cpus=self.cpus, num_gpus=gpus, max_restarts=0, runtime_env={"env_vars": variables}
            )
            print(f"{count} workers on Ray, {self.cpus} cores and {gpus:g} GPUs each", flush=True)
            yield Dispatcher(_RayWorkers(ray, kind, ray.put(spec)), count, self.ahead, self.retries)
        finally:
            ray.shutdown()

    def _join(self, ray: Any) -> None:
        own: dict[str, Any] = {}
        if self.address is None:
            # Ray counts cores only to place workers: more of them than there are may be asked for on this one machine.
            cores = max(os.cpu_count() or 1, (self.workers or 1) * self.cpus)
            own = {"num_cpus": cores, "object_store_memory": STORE, "include_dashboard": False}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"crew.address={self.address}: there is no Ray to work on ({error})") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray puts its own in place

    def _room(self, cluster: dict[str, float], devices: int | None) -> tuple[int, float]:
        """(workers, GPUs each) for a cluster's resources. UserError for more than it has."""
        cores, cards = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)  # Ray leaves out what there is none of
        gpus = self.gpus if self.gpus is not None else min(float(devices or 0), cards)
        most = int(min(cores // self.cpus, cards / gpus if gpus else cores))
        count = self.workers or (1 if devices is None else max(1, most))
        if count > most:
            wanted = f"{count} workers with {self.cpus} cores and {gpus:g} GPUs each"
            raise UserError(f"crew.workers: {wanted} do not fit on a cluster of {cores:g} cores and {cards:g} GPUs")
        return count, gpus


@dataclass(eq=False)
class _Handle:
    """An actor as this process sees it."""

    actor: Any
    ready: Any
    """What is waited for until it has started; None from then on."""
    streams: deque[Any] = field(default_factory=deque)
    """The results of its groups, a stream a group."""

    @property
    def awaited(self) -> Any:
        return self.ready if self.ready is not None else self.streams[0]


@dataclass(frozen=True)
class _RayWorkers:
    """The actors, for the dispatcher."""

    ray: Any
    kind: Any
    """The worker as an actor class of Ray's."""
    spec: Any
    """In Ray's object store, so that it is sent to a machine once."""

    def start(self, number: int) -> _Handle:
        actor = self.kind.remote(self.spec)
        return _Handle(actor, actor.__ray_ready__.remote())

    def give(self, worker: _Handle, group: Sequence[Any]) -> None:
        # A stream of results, not one list at the end: what a worker has finished is on disc before it may die.
        worker.streams.append(worker.actor.work.options(num_returns="streaming").remote(group))

    def wait(self, workers: Sequence[_Handle]) -> tuple[_Handle, Event]:
        (reply,), _ = self.ray.wait([worker.awaited for worker in workers])
        worker = next(worker for worker in workers if worker.awaited is reply)
        return worker, self._event(worker)

    def _event(self, worker: _Handle) -> Event:
        """The next event of a worker that has one."""
        errors = self.ray.exceptions
        try:
            if worker.ready is not None:
                self.ray.get(worker.ready)
                worker.ready = None
                return Ready()
            event: Event = self.ray.get(next(worker.streams[0]))
        except errors.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, (UserError, Outage)) else error)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            return Died(f"Ray says: {_short(str(error))}")
        if isinstance(event, GroupDone):
            worker.streams.popleft()
        return event

    def bury(self, worker: _Handle) -> None:
        self.ray.kill(worker.actor)
        worker.streams.clear()

    def dismiss(self, workers: Sequence[_Handle]) -> None:
        ends = [worker.actor.close.remote() for worker in workers]
        if ends:
            self.ray.wait(ends, num_returns=len(ends), timeout=CLOSING)


class _Worker:
    """The actor: a process of the cluster."""

    def __init__(self, spec: WorkerSpec[Any, TaskResult]) -> None:
        self.spec = spec
        self.stack = ExitStack()
        self.worker: Worker[Any, TaskResult] | None = None

    def work(self, group: list[Any]) -> Iterator[Arrived[TaskResult] | GroupDone]:
        """The results of a group, one by one; at last what the worker says of itself."""
        if self.worker is None:  # opened here and not in __init__, whose errors Ray reports as the death of the actor
            self.worker = self.stack.enter_context(self.spec.open(f"{socket.gethostname()}-{os.getpid()}"))
        for result in self.worker.work(group):  # and no `yield from`: Ray sends into its generators
            yield Arrived(result)
        yield GroupDone(self.worker.provenance)

    def close(self) -> None:
        self.stack.close()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(NEEDS_RAY) from error


def _short(why: str) -> str:
    """What happened, without Ray's page of what it may have been."""
    detail = why.partition("exit detail: ")[2] or why
    return " ".join(detail.partition("There are some potential")[0].split())[:REASON]
