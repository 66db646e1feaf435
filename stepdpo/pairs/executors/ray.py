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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import ProblemResult
from stepdpo.pairs.engine.worker import Worker, WorkerContext
from stepdpo.pairs.executors.dispatch import Dispatcher

STORE = 256 * 2**20
"""Bytes that a local Ray keeps free for what is sent about: problems and pairs are small."""
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
    def open(self, worker_context: WorkerContext) -> Iterator[Dispatcher]:
        """Join the cluster, or start one, and describe the workers; they load the model when they are given a group."""
        os.environ.update(QUIET)
        ray = _ray()
        self._join(ray)
        try:
            count, gpus = self._room(ray.cluster_resources())
            variables = {**QUIET, "OMP_NUM_THREADS": str(self.cpus), "OMP_WAIT_POLICY": "PASSIVE"}
            # Not restarted by Ray, which does not know what has arrived of a group: the dispatcher replaces a dead one.
            kind = ray.remote(_Worker).options(
                num_cpus=self.cpus, num_gpus=gpus, max_restarts=0, runtime_env={"env_vars": variables}
            )
            print(f"{count} workers on Ray, {self.cpus} cores and {gpus:g} GPUs each", flush=True)
            yield Dispatcher(ray, kind, ray.put(worker_context), count, self.ahead, self.retries)
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

    def _room(self, cluster: dict[str, float]) -> tuple[int, float]:
        """(workers, GPUs each) for a cluster's resources. UserError for more than it has."""
        cores, cards = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)  # Ray leaves out what there is none of
        gpus = self.gpus if self.gpus is not None else min(1.0, cards)
        most = int(min(cores // self.cpus, cards / gpus if gpus else cores))
        count = self.workers or max(1, most)
        if count > most:
            wanted = f"{count} workers with {self.cpus} cores and {gpus:g} GPUs each"
            raise UserError(f"crew.workers: {wanted} do not fit on a cluster of {cores:g} cores and {cards:g} GPUs")
        return count, gpus


class _Worker:
    """The actor: a process of the cluster."""

    def __init__(self, worker_context: WorkerContext) -> None:
        self.worker_context = worker_context
        self.stack = ExitStack()
        self.worker: Worker | None = None

    def work(self, group: list[Problem]) -> Iterator[ProblemResult | dict[str, Any]]:
        """The results of a group, problem by problem; at last what the sampler says of itself."""
        if self.worker is None:  # opened here and not in __init__, whose errors Ray reports as the death of the actor
            self.worker = self.stack.enter_context(self.worker_context.open(f"{socket.gethostname()}-{os.getpid()}"))
        yield from self.worker.work(group)
        yield self.worker.provenance

    def close(self) -> None:
        self.stack.close()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(NEEDS_RAY) from error
