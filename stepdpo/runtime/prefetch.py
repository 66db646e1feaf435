"""The next thing is made in the background while this one is used. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """`take(n)` gives `make(n)`, while n + 1 is being made, up to `stop`.

    Whatever goes wrong in the background is raised by the `take` that asks for it.
    """

    def __init__(self, make: Callable[[int], T], stop: int) -> None:
        self.make, self.stop = make, stop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: tuple[int, Future[T]] | None = None

    def take(self, number: int) -> T:
        """What belongs to `number`; quick when the last call was for the one before it."""
        waiting, self._next = self._next, None
        if waiting and waiting[0] == number:
            made = waiting[1].result()
        else:
            made = self._thread.submit(self.make, number).result()
        if number + 1 < self.stop:
            self._next = number + 1, self._thread.submit(self.make, number + 1)
        return made

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
