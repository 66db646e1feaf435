"""How far long work has come: a bar on a terminal, a line now and then elsewhere, in one form for all verbs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from stepdpo.core.errors import printable
from stepdpo.runtime.terminal import guard_output, plain

EVERY = 15.0
"""Seconds between two lines where there is no bar: often enough to see that it lives, seldom enough for a log."""


class Progress:
    """Counts up to `total`, which may be unknown; silent unless `enabled`.

    `done` of them were finished before: they are part of the count, and not of the rate that the eta is told from.
    """

    def __init__(
        self, what: str, total: int | None, done: int = 0, *, enabled: bool = True, every: float = EVERY,
        transient: bool = True,
    ) -> None:  # fmt: skip
        """`what` is counted, in the singular: `update`, `problem`, `response`. A `transient` bar goes at the end."""
        self.what, self.total, self.before, self.done = what, total, done, done
        self.enabled, self.every, self.transient = enabled, every, transient
        self.console = Console(file=plain(sys.stdout), soft_wrap=True, highlight=False)
        self.began = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        self.began = self.last = time.monotonic()
        if self.enabled and self.console.is_terminal:
            columns = (
                TextColumn(f"{self.what}s"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), TextColumn("{task.fields[eta]}"),
            )  # fmt: skip
            self.bar = RichProgress(*columns, console=self.console, transient=self.transient)
            self.bar.start()
            guard_output()  # while there is a bar, rich has streams of its own in place of ours
            self.bar.add_task(self.what, total=self.total, completed=self.done, figures="", eta="")
        return self

    @property
    def seconds(self) -> float:
        """Since it was opened; never 0, so that it may divide."""
        return max(time.monotonic() - self.began, 1e-9)

    def advance(self, count: int = 1, figures: str = "") -> None:
        """So many more are done; `figures` are shown beside the count."""
        self.done += count
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done, figures=figures, eta=self.eta())
        elif time.monotonic() - self.last >= self.every:
            self.line(figures)

    def line(self, figures: str = "") -> None:
        """The count as a line of a log, now; nothing where there is a bar."""
        if self.enabled and not self.bar:
            self.last = time.monotonic()
            count = f"{self.what} {self.done:,}/{'?' if self.total is None else format(self.total, ',')}"
            print("  ".join(filter(None, (count, figures, self.eta()))), flush=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if not self.enabled:
            return
        if self.bar:
            self.bar.console.print(Text(printable(text)))  # a Text: brackets in it are no markup
        else:
            print(text, flush=True)

    def summary(self, tokens: int) -> None:
        """A last line, with the rate at which so many tokens were written."""
        if self.enabled and tokens:
            seconds, count = self.seconds, f"{self.done} {self.what}s, {tokens:,} tokens"
            print(f"{count} in {seconds:.1f} s ({tokens / seconds:,.0f} tokens/s)", flush=True)

    def eta(self) -> str:
        """When it will be done at the rate so far; empty where that cannot be known."""
        new = self.done - self.before
        if self.total is None or not new:
            return ""
        return f"eta {clock(self.seconds / new * max(0, self.total - self.done))}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        sys.stdout.flush()


def clock(seconds: float) -> str:
    """1:23:45, or 23:45 within the hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
