"""Commands in forks of one process that has imported the command line: many are tried in the time of a few.

A fork is what a user's process is once its imports are done: fresh state, descriptors and processor time of its own.
`torch` cannot be imported in it, nor in a worker that it starts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from support.commands import Done, environment

FORBIDDEN = "torch is imported"
"""What is said, and ends the process, where it is."""


@dataclass(frozen=True)
class Timed:
    done: Done
    seconds: float
    """Of the processor: for the command, all that it started, and the imports."""


class Forks:
    """The other end of the process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, words: Sequence[str], cwd: Path, **more: str) -> Timed:
        """`stepdpo WORDS`, waited for."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"words": list(words), "cwd": str(cwd), "more": more}) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return Timed(Done(told["code"], told["out"], told["err"]), told["seconds"])


@contextmanager
def opened(folder: Path) -> Iterator[Forks]:
    """Start the process; `folder` is for what it needs beside it."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(f"raise SystemExit('error: {FORBIDDEN}')\n")
    path = f"{folder}:{environment()['PYTHONPATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "support.forked"], env=environment(PYTHONPATH=path, PYTHONSAFEPATH="1"), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Forks(process)
    finally:
        process.communicate()


def _serve() -> None:
    from stepdpo.cli import check_names, launch, rehearsal, reports
    from stepdpo.cli.job_config import split
    from stepdpo.cli.main import main
    from stepdpo.cli.overrides import composed

    assert all((check_names, launch, reports))  # what a verb imports only once it is asked for
    sys.argv = ["stepdpo", "train", "a_word_that_means_nothing"]
    with suppress(SystemExit), redirect_stderr(StringIO()):
        main()  # for what Typer and Hydra import as they go
    sys.meta_path.insert(0, rehearsal._StandIns())  # once for all forks, where a command has them in one of its own
    rehearsal._look([("", split(composed(verb, []))[1]) for verb in ("train", "eval", "pairs")])
    used = resource.getrusage(resource.RUSAGE_SELF)
    imports = used.ru_utime + used.ru_stime
    for line in sys.stdin:
        task = json.loads(line)
        out, err = (os.memfd_create(name) for name in ("out", "err"))
        child = os.fork()
        if not child:
            _become(main, task, out, err)
        _, status, used = os.wait4(child, 0)
        said = [_read(file) for file in (out, err)]
        seconds = imports + used.ru_utime + used.ru_stime
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, "out": said[0], "err": said[1], "seconds": seconds}), flush=True)


def _become(main: Any, task: dict[str, Any], out: int, err: int) -> None:
    """The child's whole life: its ends of the pipes belong to the parent."""
    code: Any = 0
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(task["cwd"])
    os.environ.update(task["more"])
    sys.argv = ["stepdpo", *task["words"]]
    try:
        main()
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def _read(file: int) -> str:
    size = os.lseek(file, 0, os.SEEK_END)
    text = os.pread(file, size, 0).decode(errors="backslashreplace")
    os.close(file)
    return text


if __name__ == "__main__":
    _serve()
