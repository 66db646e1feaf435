"""Ctrl-C and SIGTERM: finish the update, save, then stop; every process at the same update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from stepdpo.runtime.processes import Processes

CAUGHT = (signal.SIGINT, signal.SIGTERM)
SAVED = "a checkpoint was saved, resume=true goes on"
KEPT = "what is finished is kept, resume=true goes on"


class Interrupted(Exception):
    """Stopped by a signal after a clean save."""

    def __init__(self, signum: int, words: str = SAVED) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; {words}")
        self.signum = signum


@contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Work that is saved as it comes: Ctrl-C and SIGTERM end it where it is, as Interrupted with these words.

    Everything that is open within is closed on the way. Outside the main thread nothing is caught. What is raised is
    KeyboardInterrupt, which nothing that catches plain exceptions swallows.
    """
    seen: list[int] = []

    def end(signum: int, frame: FrameType | None) -> None:
        again = bool(seen)
        seen.append(signum)
        if again and signum == signal.SIGTERM:
            return  # whoever stops a run may say so twice; what is being closed must be closed
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    previous = {s: signal.signal(s, end) for s in CAUGHT} if main else {}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(seen[0] if seen else signal.SIGINT, words) from None
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class StopSignals:
    """While open, the first signal is remembered; a second Ctrl-C stops at once.

    Once a run has stopped, SIGTERM stays ignored: launchers send it to the processes that are still tidying up.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.seen = 0
        self.previous: dict[int, Any] = {}

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.seen and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.seen = self.seen or signum

    def agreed(self) -> int:
        """The signal that any process has seen, or 0; every process must ask at the same update."""
        # A launcher may reach one process only, or reach them between two steps: what one heard, all must act on.
        heard = self.processes.all_reduce_sum([float(self.seen == s) for s in CAUGHT])
        return next((int(s) for s, count in zip(CAUGHT, heard, strict=True) if count), 0)

    def __enter__(self) -> StopSignals:
        self.previous = {s: signal.signal(s, self._remember) for s in CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self.previous.items():
            over = isinstance(error, Interrupted) and signum == signal.SIGTERM
            signal.signal(signum, signal.SIG_IGN if over else handler)
