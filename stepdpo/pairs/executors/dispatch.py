"""Groups of problems given to workers, results taken as they come, and what to do when a worker dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.requests import Finished

FAREWELL = 10.0
"""Seconds that workers have to close what they opened."""
REASON = 400
"""Characters of Ray's reasons that are shown."""


@dataclass(eq=False)
class Load:
    """A group of problems that is given to workers until one has finished it."""

    group: list[Problem]
    deaths: int = 0
    done: set[str] = field(default_factory=set)
    """Ids of those whose results are here already."""


@dataclass(eq=False)
class Hand:
    """A worker as seen from here."""

    actor: Any
    ready: Any
    """What is waited for until the worker has started; None from then on."""
    loads: deque[tuple[Load, Any]] = field(default_factory=deque)
    """What it was given, with the streams of the results, in the order in which it works on them."""

    @property
    def awaited(self) -> Any:
        return self.ready if self.ready is not None else self.loads[0][1] if self.loads else None


@dataclass
class Crew:
    """Workers that wait for groups of problems."""

    ray: Any
    kind: Any
    """The worker as an actor class of Ray's."""
    bench: Any
    count: int
    ahead: int
    retries: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What a sampler says of itself, once one has worked."""
    stock: deque[Load] = field(default_factory=deque)
    """Groups that nobody has: the next one, and those whose worker died."""
    false_starts: int = 0

    def finish(self, groups: Iterable[list[Problem]]) -> Iterator[Finished]:
        """What comes of the problems, as it comes; a worker that has finished a group is given the next one."""
        fresh = map(Load, groups)
        hands = [Hand(*self._hire()) for _ in range(self.count)]
        while self._give(hands, fresh):
            (said,), _ = self.ray.wait([hand.awaited for hand in hands if hand.awaited is not None])
            yield from self._hear(next(hand for hand in hands if hand.awaited is said))
        ends = [hand.actor.close.remote() for hand in hands if hand.ready is None]
        if ends:
            self.ray.wait(ends, num_returns=len(ends), timeout=FAREWELL)

    def _hire(self) -> tuple[Any, Any]:
        actor = self.kind.remote(self.bench)
        return actor, actor.__ray_ready__.remote()

    def _give(self, hands: list[Hand], fresh: Iterator[Load]) -> bool:
        """Each next group to the worker that has fewest; False once everything is finished."""
        while True:
            if not self.stock:
                self.stock.extend(islice(fresh, 1))
            free = [hand for hand in hands if hand.ready is None and len(hand.loads) < self.ahead]
            if not self.stock or not free:
                return bool(self.stock) or any(hand.loads for hand in hands)
            hand = min(free, key=lambda hand: len(hand.loads))
            load = self.stock.popleft()
            hand.loads.append((load, hand.actor.work.options(num_returns="streaming").remote(load.group)))

    def _hear(self, hand: Hand) -> Iterator[Finished]:
        """The next word of a worker that has something to say."""
        errors = self.ray.exceptions
        try:
            if hand.ready is not None:
                self.ray.get(hand.ready)
                hand.ready = None
                return
            load, stream = hand.loads[0]
            said = self.ray.get(next(stream))
        except StopIteration:
            hand.loads.popleft()
        except errors.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, (UserError, Outage)) else error)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            self._replace(hand, str(error))
        else:
            if isinstance(said, dict):
                self.facts = said
            elif said.problem not in load.done:
                load.done.add(said.problem)
                yield said

    def _replace(self, hand: Hand, why: str) -> None:
        """A new worker for one that died; what that one had is given out again."""
        self.ray.kill(hand.actor)
        loads = [load for load, _ in hand.loads]
        hand.loads.clear()
        if loads:
            loads[0].deaths += 1
        else:
            self.false_starts += 1
        deaths = loads[0].deaths if loads else self.false_starts
        over = f"over the problems from {loads[0].group[0].id} on" if loads else "before they began"
        reason = _short(why)
        if deaths > self.retries:
            raise RuntimeError(f"{deaths} workers died {over}; resume=true goes on. Ray says: {reason}")
        print(f"warning: a worker died {over}; another one goes on. Ray says: {reason}", flush=True)
        self.stock.extendleft(reversed(loads))
        hand.actor, hand.ready = self._hire()


def _short(why: str) -> str:
    """What happened, of Ray's page of what it may have been."""
    detail = why.partition("exit detail: ")[2] or why
    return " ".join(detail.partition("There are some potential")[0].split())[:REASON]
