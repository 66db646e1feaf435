"""What a person sees while a model writes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

EVERY = 15.0
"""Seconds between two lines."""


class Progress:
    """Counts finished responses; silent unless `speaks`."""

    def __init__(self, total: int, enabled: bool) -> None:
        self.total, self.enabled, self.done, self.tokens = total, enabled, 0, 0
        self.began = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        console = Console(highlight=False)
        if self.enabled and console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn())
            self.bar = RichProgress(TextColumn("writing"), *columns, console=console, transient=True)
            self.bar.start()
            self.bar.add_task("writing", total=self.total)
        return self

    def advance(self, count: int) -> None:
        """So many responses are finished."""
        self.done += count
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done)
        elif self.enabled and now - self.last >= EVERY:
            self.last, passed = now, now - self.began
            left = passed / max(1, self.done) * (self.total - self.done)
            print(f"written {self.done}/{self.total} responses in {passed:.0f} s  eta {left:.0f} s", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        passed = time.monotonic() - self.began
        if self.enabled and kind is None and self.tokens:
            rate = self.tokens / max(passed, 1e-9)
            print(f"{self.done} responses, {self.tokens:,} tokens in {passed:.1f} s ({rate:,.0f} tokens/s)", flush=True)
