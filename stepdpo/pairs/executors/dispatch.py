"""Groups of problems given to workers, results taken as they come, and what to do when a worker dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import ProblemResult

FAREWELL = 10.0
"""Seconds that workers have to close what they opened."""
REASON = 400
"""Characters of Ray's reasons that are shown."""


@dataclass(eq=False)
class GroupTask:
    """A group of problems that is given to workers until one has finished it."""

    group: list[Problem]
    deaths: int = 0
    done: set[str] = field(default_factory=set)
    """Ids of those whose results are here already."""


@dataclass(eq=False)
class WorkerHandle:
    """A worker as seen from here."""

    actor: Any
    ready: Any
    """What is waited for until the worker has started; None from then on."""
    tasks: deque[tuple[GroupTask, Any]] = field(default_factory=deque)
    """What it was given, with the streams of the results, in the order in which it works on them."""

    @property
    def awaited(self) -> Any:
        return self.ready if self.ready is not None else self.tasks[0][1] if self.tasks else None


@dataclass
class Dispatcher:
    """Workers that wait for groups of problems."""

    ray: Any
    kind: Any
    """The worker as an actor class of Ray's."""
    worker_context: Any
    count: int
    ahead: int
    retries: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What a sampler says of itself, once one has worked."""
    stock: deque[GroupTask] = field(default_factory=deque)
    """Groups that nobody has: the next one, and those whose worker died."""
    false_starts: int = 0

    def finish(self, groups: Iterable[list[Problem]]) -> Iterator[ProblemResult]:
        """What comes of the problems, as it comes; a worker that has finished a group is given the next one."""
        fresh = map(GroupTask, groups)
        handles = [WorkerHandle(*self._hire()) for _ in range(self.count)]
        while self._give(handles, fresh):
            (reply,), _ = self.ray.wait([handle.awaited for handle in handles if handle.awaited is not None])
            yield from self._hear(next(handle for handle in handles if handle.awaited is reply))
        ends = [handle.actor.close.remote() for handle in handles if handle.ready is None]
        if ends:
            self.ray.wait(ends, num_returns=len(ends), timeout=FAREWELL)

    def _hire(self) -> tuple[Any, Any]:
        actor = self.kind.remote(self.worker_context)
        return actor, actor.__ray_ready__.remote()

    def _give(self, handles: list[WorkerHandle], fresh: Iterator[GroupTask]) -> bool:
        """Each next group to the worker that has fewest; False once everything is finished."""
        while True:
            if not self.stock:
                self.stock.extend(islice(fresh, 1))
            free = [handle for handle in handles if handle.ready is None and len(handle.tasks) < self.ahead]
            if not self.stock or not free:
                return bool(self.stock) or any(handle.tasks for handle in handles)
            handle = min(free, key=lambda handle: len(handle.tasks))
            task = self.stock.popleft()
            handle.tasks.append((task, handle.actor.work.options(num_returns="streaming").remote(task.group)))

    def _hear(self, handle: WorkerHandle) -> Iterator[ProblemResult]:
        """The next word of a worker that has something to say."""
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
                self.facts = reply
            elif reply.problem not in task.done:
                task.done.add(reply.problem)
                yield reply

    def _replace(self, handle: WorkerHandle, why: str) -> None:
        """A new worker for one that died; what that one had is given out again."""
        self.ray.kill(handle.actor)
        tasks = [task for task, _ in handle.tasks]
        handle.tasks.clear()
        if tasks:
            tasks[0].deaths += 1
        else:
            self.false_starts += 1
        deaths = tasks[0].deaths if tasks else self.false_starts
        over = f"over the problems from {tasks[0].group[0].id} on" if tasks else "before they began"
        reason = _short(why)
        if deaths > self.retries:
            raise RuntimeError(f"{deaths} workers died {over}; resume=true goes on. Ray says: {reason}")
        print(f"warning: a worker died {over}; another one goes on. Ray says: {reason}", flush=True)
        self.stock.extendleft(reversed(tasks))
        handle.actor, handle.ready = self._hire()


def _short(why: str) -> str:
    """What happened, of Ray's page of what it may have been."""
    detail = why.partition("exit detail: ")[2] or why
    return " ".join(detail.partition("There are some potential")[0].split())[:REASON]
