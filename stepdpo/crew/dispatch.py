"""Dispatches groups of tasks to workers, takes their results as they come, and replaces workers that die.

Whether the workers are processes of this machine or actors of a cluster is for `Workers` to know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from stepdpo.crew.protocols import R, T

H = TypeVar("H")
"""A worker as `Workers` knows it."""


@dataclass(frozen=True)
class Ready:
    """It has started, and may be given groups."""


@dataclass(frozen=True)
class Arrived(Generic[R]):
    """A result of the group that it works on."""

    result: R


@dataclass(frozen=True)
class GroupDone:
    """All results of the group have been sent."""

    provenance: dict[str, Any]


@dataclass(frozen=True)
class Died:
    """It is no more."""

    why: str


Event = Ready | Arrived[Any] | GroupDone | Died


class Workers(Protocol[H]):
    """Workers, wherever they run."""

    def start(self, number: int) -> H:
        """Start the worker of this number, from 0, again if the one before it died; it says `Ready` later."""
        ...

    def give(self, worker: H, group: Sequence[Any]) -> None:
        """Send it a group, which it works on after those that it has."""
        ...

    def wait(self, workers: Sequence[H]) -> tuple[H, Event]:
        """What happens next to one of these, which have not said `Ready` or have a group.

        Raises what a worker raised over its group, as it is.
        """
        ...

    def bury(self, worker: H) -> None:
        """Let go of what is left of one that died."""
        ...

    def dismiss(self, workers: Sequence[H]) -> None:
        """Have them close what they opened, once everything is finished."""
        ...


@dataclass(eq=False)
class GroupTask(Generic[T]):
    """A group, given to one worker after another until one has finished it."""

    group: Sequence[T]
    deaths: int = 0
    done: set[str] = field(default_factory=set)
    """Ids of those whose results are here already: a worker that begins again sends these once more."""


@dataclass(eq=False)
class _Post(Generic[T, H]):
    """A place for a worker: who holds it now, and what that one has to do."""

    number: int
    worker: H
    ready: bool = False
    tasks: deque[GroupTask[T]] = field(default_factory=deque)
    """In the order in which it works on them."""


@dataclass
class Dispatcher(Generic[T, R, H]):
    """An open executor: keeps `count` workers busy with `ahead` groups each."""

    workers: Workers[H]
    count: int
    ahead: int
    retries: int
    """How often a group is given to another worker after one died over it: then it is the group that kills them."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What a worker says of itself, once one has finished a group."""
    waiting: deque[GroupTask[T]] = field(default_factory=deque)
    """Groups that no worker has: the next one, and those whose worker died."""
    failed_starts: int = 0
    """Workers that died before they were given anything."""

    def finish(self, groups: Iterable[Sequence[T]]) -> Iterator[R]:
        """The results of all groups, as they come; a worker that has finished a group is given the next one."""
        fresh: Iterator[GroupTask[T]] = map(GroupTask, groups)
        posts: list[_Post[T, H]] = [_Post(number, self.workers.start(number)) for number in range(self.count)]
        while self._assign(posts, fresh):
            worker, event = self.workers.wait([post.worker for post in posts if post.tasks or not post.ready])
            yield from self._note(next(post for post in posts if post.worker == worker), event)
        self.workers.dismiss([post.worker for post in posts if post.ready])

    def _assign(self, posts: list[_Post[T, H]], fresh: Iterator[GroupTask[T]]) -> bool:
        """Each next group to the worker that has fewest; False once everything is finished."""
        while True:
            if not self.waiting:
                # One at a time: tasks are read as they are needed, so a long stream never lies in memory.
                self.waiting.extend(islice(fresh, 1))
            free = [post for post in posts if post.ready and len(post.tasks) < self.ahead]
            if not self.waiting or not free:
                return bool(self.waiting) or any(post.tasks for post in posts)
            post = min(free, key=lambda post: len(post.tasks))
            task = self.waiting.popleft()
            post.tasks.append(task)
            self.workers.give(post.worker, task.group)

    def _note(self, post: _Post[T, H], event: Event) -> Iterator[R]:
        """What follows from an event; the result that it may hold, unless that was here before."""
        if isinstance(event, Ready):
            post.ready = True
        elif isinstance(event, GroupDone):
            post.tasks.popleft()
            self.provenance = event.provenance
        elif isinstance(event, Died):
            self._replace(post, event.why)
        elif event.result.problem not in post.tasks[0].done:
            post.tasks[0].done.add(event.result.problem)
            yield event.result

    def _replace(self, post: _Post[T, H], why: str) -> None:
        """A new worker for one that died; the groups that one had go to the front of those that wait."""
        self.workers.bury(post.worker)
        tasks = list(post.tasks)
        post.tasks.clear()
        # Only the group that was worked on can be to blame; the prefetched ones behind it are not counted.
        if tasks:
            tasks[0].deaths += 1
        else:
            self.failed_starts += 1
        deaths = tasks[0].deaths if tasks else self.failed_starts
        over = f"over the problems from {tasks[0].group[0].id} on" if tasks else "before they began"
        if deaths > self.retries:
            raise RuntimeError(f"{deaths} workers died {over}; resume=true goes on. {why}")
        print(f"warning: a worker died {over}; another one goes on. {why}", flush=True)
        # To the front, and in their order: a group that kills its worker is tried again at once and ends the run soon,
        # not after hours, and no group is left over for the end, when the other workers have nothing to do.
        self.waiting.extendleft(reversed(tasks))
        post.worker, post.ready = self.workers.start(post.number), False
