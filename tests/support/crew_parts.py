"""Workers that do as their tasks say, and import nothing that takes long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stepdpo.core.errors import Outage, UserError


class Unsendable(Exception):
    """Cannot be made again from what it was pickled as."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@dataclass(frozen=True)
class Doing:
    """A task: its name, and what a worker does over it."""

    id: str
    do: str = ""
    folder: Path = Path()
    """Where it is kept what was done once."""

    def once(self) -> bool:
        """Whether this is the first time, over all processes."""
        try:
            (self.folder / self.id).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class Did:
    problem: str
    pid: int
    threads: str
    devices: str | None


@dataclass(frozen=True)
class DoingWorker:
    name: str

    @property
    def provenance(self) -> dict[str, Any]:
        return {"made": "by hand"}

    def work(self, group: Sequence[Doing]) -> Iterator[Did]:
        for one in group:
            _do(one)
            yield Did(one.id, os.getpid(), os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"))


@dataclass(frozen=True)
class DoingSpec:
    devices: int | None = 0
    closed: Path | None = None
    """A file that says so, a line a worker."""

    @contextmanager
    def open(self, name: str = "") -> Iterator[DoingWorker]:
        try:
            yield DoingWorker(name)
        finally:
            if self.closed:
                with self.closed.open("a") as file:
                    file.write(f"{os.getpid()}\n")


def _do(one: Doing) -> None:
    if one.do == "die" or (one.do == "die once" and one.once()):
        os.kill(os.getpid(), signal.SIGKILL)
    if one.do == "leave" and one.once():
        _leave()
    if one.do == "meet":  # go on once two workers are here
        (one.folder / f"here {os.getpid()}").touch()
        while len(list(one.folder.glob("here *"))) < 2:
            time.sleep(0.01)
    if one.do == "wait":
        (one.folder / f"waits {os.getpid()}").touch()
        time.sleep(600)
    errors = {"mend": UserError("mend it"), "outage": Outage("no answer"), "bug": ValueError("a bug")}
    if one.do in errors:
        raise errors[one.do]
    if one.do == "unsendable":
        raise Unsendable("not ", "sent")


def _leave() -> NoReturn:
    """Die, and leave behind a process that has the same files open."""
    if not os.fork():
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
