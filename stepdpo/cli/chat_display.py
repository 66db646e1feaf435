"""What `chat` prints on a terminal: answers on stdout, everything else on stderr. A model's text is never markup."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from stepdpo.cli.chat_session import Answer, Shown, told, worth
from stepdpo.core.errors import printable
from stepdpo.generation.requests import Beginning
from stepdpo.generation.watched import Looked, Wrote
from stepdpo.runtime.progress import EVERY
from stepdpo.runtime.terminal import plain

OFTEN = 0.2
"""Seconds between two counts on a terminal."""
LINE = 100
"""Characters of a step that are shown while others are looked at."""


class Display:
    """The work on one question, and its answer."""

    def __init__(self) -> None:
        self.out = Console(file=plain(sys.stdout), soft_wrap=True, highlight=False)
        self.live = sys.stderr.isatty()
        self.text = ""
        """What of the answer is printed already."""
        self.tokens = 0
        self.last = time.monotonic()
        self.status = ""

    def tell(self, event: Wrote | Looked) -> None:
        """Show what happens, as far as it can be told."""
        if isinstance(event, Looked):
            self._clear()
            note(looked(event))
            return
        self.tokens = event.tokens
        if event.text is not None:
            self._stream(event.text)
        elif time.monotonic() - self.last >= (OFTEN if self.live else EVERY):
            self.last = time.monotonic()
            self._count(f"  {self.tokens:,} tokens written")

    def answer(self, answer: Answer) -> None:
        """The answer, or what is not printed of it yet, with the values of its steps."""
        self._clear()
        for number, shown in enumerate(answer.shown, start=1):
            if len(answer.shown) > 1:
                self._line(f"-- {number}", "dim")
            self._response(shown, answer)
        cost = answer.cost
        calls = f", {cost.scored:,} read by {answer.scorer} in {cost.calls} calls" if cost.scored else ""
        note(f"  {cost.generated:,} tokens written{calls}, {answer.seconds:.1f} s")

    def stopped(self) -> None:
        """The answer will not come."""
        self._clear()
        if self.text:
            print(flush=True)
        note(f"  stopped after {self.tokens:,} tokens")

    def _response(self, shown: Shown, answer: Answer) -> None:
        if self.text and shown.text.lstrip().startswith(self.text):
            print(shown.text.lstrip()[len(self.text) :].rstrip(), flush=True)
            if shown.values:
                self._values(shown, answer)
        else:
            if self.text:  # what a decoder wrote first and then dropped
                print(flush=True)
            self._steps(shown, answer)
        said = f"answer: {one_line(shown.answer)}" if shown.answer else "no answer found"
        if answer.of > 1 and shown.voters:
            said += f" ({shown.voters} of {answer.of})"
        if answer.of > 1 and shown.score is not None:
            said += f", score {told(shown.score, answer.log)}"
        self._line(said + (", cut: no room was left" if shown.finish == "length" else ""), "bold")

    def _steps(self, shown: Shown, answer: Answer) -> None:
        """A step a line or more, its value in front."""
        if not shown.values:
            self.out.print(Text(printable(shown.text.strip())))
            return
        for step in shown.steps:
            head = "" if step.value is None else told(step.value, answer.log)
            text = printable(step.text.strip()).replace("\n", "\n" + " " * 8)
            self.out.print(Text(f"{head:>6}  ", style=_style(step.value, answer.log)) + Text(text))

    def _values(self, shown: Shown, answer: Answer) -> None:
        """The values of steps that are printed already."""
        text = Text(f"values by {answer.scorer}:")
        for value in shown.values:
            text += Text("  ") + Text(told(value, answer.log), style=_style(value, answer.log))
        self.out.print(text)

    def _stream(self, text: str) -> None:
        text = text.lstrip()
        if text.startswith(self.text) and len(text) > len(self.text):
            sys.stdout.write(text[len(self.text) :])
            sys.stdout.flush()
            self.text = text

    def _count(self, status: str) -> None:
        if self.live:
            sys.stderr.write("\r" + status)
            sys.stderr.flush()
            self.status = status
        else:
            note(status)

    def _clear(self) -> None:
        if self.status:
            sys.stderr.write("\r" + " " * len(self.status))
            sys.stderr.write("\r")
            sys.stderr.flush()
            self.status = ""

    def _line(self, text: str, style: str = "") -> None:
        # A Text, since rich would read brackets of a string as markup.
        self.out.print(Text(printable(text), style=style))


def looked(event: Looked) -> str:
    """How many beginnings were scored, and the best of them by its last step."""
    best = best_of(event)
    score, steps = event.scored[best].score, _steps_of(event.beginnings[best])
    many = len(event.beginnings)
    return f"  {many} scored, the best {told(score, event.scored[best].log)}: {one_line(steps[-1])[:LINE]}"


def best_of(event: Looked) -> int:
    """The place of the largest score, the first of equal ones."""
    scores = [found.score for found in event.scored]
    return scores.index(max(scores))


def one_line(text: str) -> str:
    """A text without line breaks and runs of blanks."""
    return " ".join(text.split())


def note(text: str) -> None:
    """Something that is no answer."""
    print(text, file=sys.stderr, flush=True)


def _steps_of(beginning: Beginning) -> Sequence[str]:
    return beginning.steps or ("",)


def _style(value: float | None, log: bool) -> Style:
    """From red over yellow to green."""
    if value is None:
        return Style()
    share = worth(value, log)
    red, green = min(1.0, 2 - 2 * share), min(1.0, 2 * share)
    return Style(color=f"rgb({round(200 * red)},{round(170 * green)},0)", bold=True)
