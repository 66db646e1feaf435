"""What a person sees while pairs are made: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from stepdpo.pairs.engine.requests import ProblemResult

EVERY = 15.0
"""Seconds between two lines."""


class Progress:
    """Counts finished problems, of `total` where that is known.

    `done` of them, with `pairs` pairs, were finished before: they are part of the counts, and not of the rates.
    """

    def __init__(self, total: int | None, done: int = 0, pairs: int = 0) -> None:
        self.total, self.before, self.done, self.pairs = total, done, done, pairs
        self.tokens = self.graded = self.right = 0
        self.began = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        self.began = self.last = time.monotonic()
        console = Console(soft_wrap=True, highlight=False)
        if console.is_terminal:
            columns = (
                TextColumn("problems"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), TextColumn("{task.fields[eta]}"),
            )  # fmt: skip
            self.bar = RichProgress(*columns, console=console, transient=True)
            self.bar.start()
            self.bar.add_task("problems", total=self.total, completed=self.done, figures="", eta="")
        return self

    def advance(self, finished: ProblemResult) -> None:
        """One more problem is finished."""
        self.done += 1
        self.pairs += len(finished.result.preferences)
        self.tokens += finished.tokens
        self.graded += finished.graded
        self.right += finished.right
        now = time.monotonic()
        if self.bar:
            passed = now - self.began
            self.bar.update(
                self.bar.task_ids[0], completed=self.done, figures=self.figures(passed), eta=self.eta(passed)
            )
        elif now - self.last >= EVERY:
            self.last, passed = now, now - self.began
            words = (f"problem {self.done}/{self.total or '?'}", self.figures(passed), self.eta(passed))
            print("  ".join(filter(None, words)), flush=True)

    def figures(self, passed: float) -> str:
        """Rates of the last so many seconds, counts of the whole run."""
        passed, new = max(passed, 1e-9), self.done - self.before
        solved = f"  {self.right / self.graded:.0%} right" if self.graded else ""
        return f"{new / passed:.3g} problems/s  {self.pairs:,} pairs{solved}  {self.tokens / passed:,.0f} tokens/s"

    def eta(self, passed: float) -> str:
        """When it will be done at the rate of this process; empty where the number of problems is unknown."""
        new = self.done - self.before
        if self.total is None or not new:
            return ""
        return f"eta {_clock(passed / new * max(0, self.total - self.done))}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()


def _clock(seconds: float) -> str:
    """1:23:45, or 23:45 within the hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
