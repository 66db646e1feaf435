"""Which tasks are worked on together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from stepdpo.crew.protocols import T


def groups(tasks: Iterable[T], live: int, workers: int, total: int | None = None) -> Iterator[list[T]]:
    """The tasks in their order, at most `live` at a time; read as they are needed.

    One worker is given just as many. Several are given equal shares where it is known how many tasks there are in
    `total`: as many groups as it takes for every worker to have equally many of them, or else some would have nothing
    to do while the last groups are worked on.
    """
    size = live
    if workers > 1 and total:
        turns = -(-total // (live * workers))
        size = -(-total // (workers * turns))
    remaining = iter(tasks)
    while some := list(islice(remaining, size)):
        yield some
