"""What a person sees while training runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Counts updates up to `total`; silent unless `speaks`."""

    def __init__(self, total: int, start: int, enabled: bool) -> None:
        self.total, self.start, self.enabled = total, start, enabled
        self.console = Console(soft_wrap=True, highlight=False)
        self.live = enabled and self.console.is_terminal
        self.began = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.live:
            columns = (
                TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = RichProgress(*columns, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("train", total=self.total, completed=self.start, figures="")
        return self

    def advance(self, metrics: Mapping[str, float]) -> None:
        """One update is done."""
        if self.bar:
            self.bar.update(self.task, advance=1, figures=_figures(metrics))

    def note(self, done: int, metrics: Mapping[str, float]) -> None:
        """A line of the log, where there is no bar."""
        if self.enabled and not self.bar:
            passed = time.monotonic() - self.began
            left = passed / max(1, done - self.start) * (self.total - done)
            print(f"update {done}/{self.total}  {_figures(metrics)}  eta {left:.0f} s", flush=True)

    def look(self, done: int, metrics: Mapping[str, float]) -> None:
        """What the held-out pairs say."""
        if not self.enabled:
            return
        shown = {k.removeprefix("heldout/"): v for k, v in metrics.items()}
        line = f"held-out after {done}  {_figures(shown)}"
        if self.bar:
            self.bar.console.print(line)
        else:
            print(line, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        sys.stdout.flush()


def _figures(metrics: Mapping[str, float]) -> str:
    words = [f"loss {metrics['loss']:.4f}"]
    if "rewards/margins" in metrics:
        words.append(f"margin {metrics['rewards/margins']:+.3f}")
        words.append(f"accuracy {metrics['rewards/accuracies']:.3f}")
    if "tokens_per_second" in metrics:
        words.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    elif "seconds" in metrics:
        words.append(f"{metrics['tokens'] / metrics['seconds']:,.0f} tokens/s")
    return "  ".join(words)
