"""Prefetching: item n + 1 is made in a thread while item n is used. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """`take(n)` gives `make(n)` and starts on n + 1, up to `stop`.

    Whatever goes wrong in the background is raised by the `take` that asks for that item.
    """

    def __init__(self, make: Callable[[int], T], stop: int) -> None:
        self.make, self.stop = make, stop
        # One thread: `make` is never called twice at a time, so it needs no lock.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[int, Future[T]] | None = None

    def take(self, number: int) -> T:
        """Item `number`; quick when the last call was for the one before it."""
        waiting, self._next = self._next, None
        if waiting and waiting[0] == number:
            item = waiting[1].result()
        else:
            item = self._thread.submit(self.make, number).result()
        if number + 1 < self.stop:
            self._next = number + 1, self._thread.submit(self.make, number + 1)
        return item

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
