"""What reaches a terminal: whoever prints, letters that could steer it are spelt out on the way, and keys left out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any, TextIO, cast

from stepdpo.core.errors import printable
from stepdpo.runtime.secrets import without_environment

_COLOURS = re.compile(r"\x1b\[[\d;:]*m")
_UPWARDS = re.compile(r"(?:\x1b\[A)+")
"""How tqdm goes back to a bar further up: alone in a call."""


class PrintableStream:
    """A stream of text through which nothing goes that steers a terminal, nor any key of the environment.

    Names, rows, messages of other libraries: too many places print what a stranger wrote to look after each. rich is
    let past, as it draws our bars and tables, and what we hand to it is made printable before.
    """

    def __init__(self, stream: TextIO, bars: bool) -> None:
        """`bars`: tqdm's may move the cursor; it writes them, and nothing else, to stderr."""
        self.stream, self.bars = stream, bars
        self.rich_proxied_file = plain(stream)  # where rich looks for the terminal

    def write(self, text: str) -> int:
        moves = ""
        if self.bars:
            moves = text if _UPWARDS.fullmatch(text) else "\r" * text.startswith("\r")
        self.stream.write(moves + printable(without_environment(_COLOURS.sub("", text[len(moves) :]))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_output() -> None:
    """From here on, this process prints only what is printable; what the terminal's encoding lacks is no error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name is no reason to stop
        if stream is not None and not isinstance(stream, PrintableStream):
            setattr(sys, name, PrintableStream(stream, bars=name == "stderr"))


def plain(stream: TextIO) -> TextIO:
    """The stream that is written to in the end."""
    return cast(TextIO, getattr(stream, "rich_proxied_file", stream))
