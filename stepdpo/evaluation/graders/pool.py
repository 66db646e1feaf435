"""Bounded time: formulas are compared in worker processes that are killed when they take too long.

The workers are plain subprocesses and not `multiprocessing` ones, which would import the caller's main module again in
each of them: torch with it, and without end where that module is an unguarded script.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stepdpo.core.protocols import Grader
from stepdpo.core.types import Grade, Problem
from stepdpo.evaluation.graders.pending import CRASH, OUTCOMES, Comparison, Pending

GradeMany = Callable[[Sequence[tuple[str, Problem]], Grader], list[Grade]]
ROOT = str(Path(__file__).resolve().parents[3])
CACHED = 20_000
"""Comparisons whose outcomes are kept: samples of one problem repeat their answers, and a bomb costs its time once."""
WORKERS = 2
"""More than one, so that a comparison which takes all of its time does not hold up the others."""
SECONDS = 3.0
"""Seconds of processor time that a comparison has: the same verdict on a machine that is busy with other work."""
SHARE = 20.0
"""Of wall time it has so many times as much; a worker that takes longer is replaced."""
MEGABYTES = 1536
"""Of address space that a worker has."""
START, GRACE = 60.0, 2.0
"""Seconds, on top of that, that a worker has to start and to answer. To start is to import sympy, which on a busy
machine is slow."""


class Worker:
    """One worker process, started with its first request."""

    def __init__(self, timeout: float, megabytes: int) -> None:
        self.command = [sys.executable, "-P", "-m", "stepdpo.evaluation.graders.worker", str(timeout), str(megabytes)]
        self.timeout = timeout
        self.requests = 0
        self.process: subprocess.Popen[bytes] | None = None

    def compare(self, comparison: Comparison) -> str:
        """One of the outcomes of pending.py. Raises RuntimeError if no worker can be started."""
        fresh = self.process is None
        if self.process is None:
            self.process = self._start()
        self.requests += 1
        request = json.dumps([comparison.rule, comparison.predictions, comparison.golds])
        answer = self._exchange(self.process, f"{self.requests} {request}\n".encode(), START if fresh else GRACE)
        if answer:
            return answer
        self.close()
        if fresh:
            raise RuntimeError(f"the grading worker does not start; try: {' '.join(self.command)}")
        return CRASH

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, grace: float) -> str:
        """Send a request and wait for the answer of its number; empty if none comes in time."""
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        deadline = time.monotonic() + self.timeout * SHARE + grace
        arrivals = select.poll()  # select() refuses descriptors from 1024 on, which a large program may have
        arrivals.register(stdout)
        received = b""
        try:
            stdin.write(request)
            stdin.flush()
            while arrivals.poll(max(0.0, deadline - time.monotonic()) * 1000):
                chunk = os.read(stdout.fileno(), 4096)
                if not chunk:
                    break
                received += chunk
                for line in received.decode().splitlines():
                    number, _, outcome = line.partition(" ")
                    # An answer to an earlier request, given up, may still arrive; it goes by another number.
                    if number == str(self.requests) and outcome in OUTCOMES:
                        return outcome
        except OSError:
            pass
        return ""

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        # sympy goes through sets, in an order that Python draws anew for every process unless it is told a seed.
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), **fixed}
        pipe = subprocess.PIPE
        # A session of its own, so that a worker and the child forked from it are ended together.
        return subprocess.Popen(self.command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)

    def close(self) -> None:
        """End the process and its child, whatever they are doing."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class Pool:
    """A few workers for any number of threads, and a cache of what they have found."""

    def __init__(self, workers: int = WORKERS, timeout: float = SECONDS, megabytes: int = MEGABYTES) -> None:
        self.owner = os.getpid()  # a forked process inherits the pool, but must not read its workers' pipes
        self.all = [Worker(timeout, megabytes) for _ in range(workers)]
        # The last one back is the first one out: where one worker is enough, the others are never started.
        self.idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.all:
            self.idle.put(worker)
        self.cache: OrderedDict[Comparison, str] = OrderedDict()
        self.lock = threading.Lock()

    def compare(self, comparison: Comparison) -> str:
        """The outcome of one comparison, at most about the timeout of processor time later."""
        with self.lock:
            if comparison in self.cache:
                return self.cache[comparison]
        worker = self.idle.get()
        try:
            result = worker.compare(comparison)
        finally:
            self.idle.put(worker)
        with self.lock:
            self.cache[comparison] = result
            while len(self.cache) > CACHED:
                self.cache.popitem(last=False)
        return result

    def grade_many(self, items: Sequence[tuple[str, Problem]], grader: Grader) -> list[Grade]:
        """Grade responses in order; a grader that needs no workers is simply called."""
        # `examine` is the cheap part of a grader's work, which leaves the part for a worker pending.
        examine = getattr(grader, "examine", grader.grade)
        examined: list[Grade | Pending] = [examine(response, problem) for response, problem in items]
        # Each comparison once, whatever the number of responses that come to it.
        comparisons = dict.fromkeys(e.comparison for e in examined if isinstance(e, Pending))
        if not comparisons:
            return [e for e in examined if isinstance(e, Grade)]
        with ThreadPoolExecutor(len(self.all)) as threads:
            answers = dict(zip(comparisons, threads.map(self.compare, comparisons), strict=True))
        return [e if isinstance(e, Grade) else e.grade(answers[e.comparison]) for e in examined]

    def close(self) -> None:
        for worker in self.all:
            worker.close()


@contextlib.contextmanager
def graders(workers: int = WORKERS, timeout: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[GradeMany]:
    """Open a pool of workers; what it gives is called as `grade_many(items, grader)`.

    `timeout` is in seconds of processor time a comparison, `megabytes` the address space of a worker. What takes longer
    or more is graded wrong, with the reason `timeout` or `memory`.
    """
    pool = Pool(workers, timeout, megabytes)
    try:
        yield pool.grade_many
    finally:
        pool.close()


_shared: list[Pool] = []
_opening = threading.Lock()


def compare(comparison: Comparison) -> str:
    """By the pool that single calls of `grade` share; it opens by itself and lasts as long as the process."""
    with _opening:
        if not _shared or _shared[0].owner != os.getpid():
            if not _shared:
                atexit.register(_close_shared)
            _shared[:] = [Pool()]
    return _shared[0].compare(comparison)


def _close_shared() -> None:
    if _shared and _shared[0].owner == os.getpid():
        _shared[0].close()
