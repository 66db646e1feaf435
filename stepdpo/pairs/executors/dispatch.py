"""Dispatches groups of problems to Ray actors, takes their results as they come, and replaces actors that die."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import ProblemResult

CLOSING = 10.0
"""Seconds that workers have to close what they opened. All results are here by then: nothing hangs on it."""
REASON = 400
"""Characters of Ray's reasons that are shown: it writes a page of what might have happened."""


@dataclass(eq=False)
class GroupTask:
    """A group of problems, given to one worker after another until one has finished it."""

    group: list[Problem]
    deaths: int = 0
    done: set[str] = field(default_factory=set)
    """Ids of those whose results are here already: a worker that begins again sends these once more."""


@dataclass(eq=False)
class WorkerHandle:
    """A worker as the dispatcher sees it."""

    actor: Any
    ready: Any
    """What is waited for until the worker has started; None from then on."""
    tasks: deque[tuple[GroupTask, Any]] = field(default_factory=deque)
    """What it was given, with the streams of results, in the order in which it works on them."""

    @property
    def awaited(self) -> Any:
        return self.ready if self.ready is not None else self.tasks[0][1] if self.tasks else None


@dataclass
class Dispatcher:
    """An open executor: keeps `count` workers busy with `ahead` groups each."""

    ray: Any
    kind: Any
    """The worker as an actor class of Ray's."""
    worker_context: Any
    """In Ray's object store, so that it is sent to a machine once."""
    count: int
    ahead: int
    retries: int
    """How often a group is given to another worker after one died over it: then it is the group that kills them."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What a sampler says of itself, once one has worked."""
    waiting: deque[GroupTask] = field(default_factory=deque)
    """Groups that no worker has: the next one, and those whose worker died."""
    failed_starts: int = 0
    """Workers that died before they were given anything."""

    def finish(self, groups: Iterable[list[Problem]]) -> Iterator[ProblemResult]:
        """The results of all problems, as they come; a worker that has finished a group is given the next one."""
        fresh = map(GroupTask, groups)
        handles = [WorkerHandle(*self._start()) for _ in range(self.count)]
        while self._assign(handles, fresh):
            (reply,), _ = self.ray.wait([handle.awaited for handle in handles if handle.awaited is not None])
            yield from self._receive(next(handle for handle in handles if handle.awaited is reply))
        ends = [handle.actor.close.remote() for handle in handles if handle.ready is None]
        if ends:
            self.ray.wait(ends, num_returns=len(ends), timeout=CLOSING)

    def _start(self) -> tuple[Any, Any]:
        actor = self.kind.remote(self.worker_context)
        return actor, actor.__ray_ready__.remote()

    def _assign(self, handles: list[WorkerHandle], fresh: Iterator[GroupTask]) -> bool:
        """Each next group to the worker that has fewest; False once everything is finished."""
        while True:
            if not self.waiting:
                # One at a time: problems are read as they are needed, so a long stream never lies in memory.
                self.waiting.extend(islice(fresh, 1))
            free = [handle for handle in handles if handle.ready is None and len(handle.tasks) < self.ahead]
            if not self.waiting or not free:
                return bool(self.waiting) or any(handle.tasks for handle in handles)
            handle = min(free, key=lambda handle: len(handle.tasks))
            task = self.waiting.popleft()
            # A stream of results, not one list at the end: what a worker has finished is on disc before it may die.
            handle.tasks.append((task, handle.actor.work.options(num_returns="streaming").remote(task.group)))

    def _receive(self, handle: WorkerHandle) -> Iterator[ProblemResult]:
        """The next result of a worker that has one."""
        errors = self.ray.exceptions
        try:
            if handle.ready is not None:
                self.ray.get(handle.ready)
                handle.ready = None
                return
            task, stream = handle.tasks[0]
            reply = self.ray.get(next(stream))
        except StopIteration:
            handle.tasks.popleft()
        except errors.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, (UserError, Outage)) else error)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            self._replace(handle, str(error))
        else:
            if isinstance(reply, dict):
                self.provenance = reply
            elif reply.problem not in task.done:
                task.done.add(reply.problem)
                yield reply

    def _replace(self, handle: WorkerHandle, why: str) -> None:
        """A new worker for one that died; the groups that one had go to the front of those that wait."""
        self.ray.kill(handle.actor)
        tasks = [task for task, _ in handle.tasks]
        handle.tasks.clear()
        # Only the group that was worked on can be to blame; the prefetched ones behind it are not counted.
        if tasks:
            tasks[0].deaths += 1
        else:
            self.failed_starts += 1
        deaths = tasks[0].deaths if tasks else self.failed_starts
        over = f"over the problems from {tasks[0].group[0].id} on" if tasks else "before they began"
        reason = _short(why)
        if deaths > self.retries:
            raise RuntimeError(f"{deaths} workers died {over}; resume=true goes on. Ray says: {reason}")
        print(f"warning: a worker died {over}; another one goes on. Ray says: {reason}", flush=True)
        # To the front, and in their order: a group that kills its worker is tried again at once and ends the run soon,
        # not after hours, and no group is left over for the end, when the other workers have nothing to do.
        self.waiting.extendleft(reversed(tasks))
        handle.actor, handle.ready = self._start()


def _short(why: str) -> str:
    """What happened, without Ray's page of what it may have been."""
    detail = why.partition("exit detail: ")[2] or why
    return " ".join(detail.partition("There are some potential")[0].split())[:REASON]
