"""What a person sees while pairs are made: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from stepdpo.workshop.asks import Finished

EVERY = 15.0
"""Seconds between two lines."""


class Progress:
    """Counts finished problems, of `total` where that is known; `done` of them were finished before."""

    def __init__(self, total: int | None, done: int) -> None:
        self.total, self.start, self.done = total, done, done
        self.pairs = self.fruitful = self.tokens = 0
        self.began = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        console = Console(soft_wrap=True, highlight=False)
        if console.is_terminal:
            columns = (
                TextColumn("problems"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = RichProgress(*columns, console=console, transient=True)
            self.bar.start()
            self.bar.add_task("problems", total=self.total, completed=self.done, figures="")
        return self

    def advance(self, finished: Finished) -> None:
        """One more problem is finished."""
        self.done += 1
        self.pairs += len(finished.made.preferences)
        self.fruitful += bool(finished.made.preferences)
        self.tokens += finished.tokens
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done, figures=self._figures())
        elif (now := time.monotonic()) - self.last >= EVERY:
            self.last = now
            passed, new = now - self.began, self.done - self.start
            left = f"  eta {passed / new * (self.total - self.done):.0f} s" if self.total is not None else ""
            print(f"problem {self.done}/{self.total or '?'}  {self._figures()}{left}", flush=True)

    def _figures(self) -> str:
        passed, new = max(1e-9, time.monotonic() - self.began), max(1, self.done - self.start)
        return (
            f"{new / passed:.2g} problems/s  {self.pairs:,} pairs  {self.fruitful / new:.0%} of problems gave pairs  "
            f"{self.tokens / passed:,.0f} tokens/s"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
