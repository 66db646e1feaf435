"""Problems a second of one worker process and of two, by the real commands, turn and turn about. `make bench-crew`.

    one          crew=processes crew.workers=1 crew.threads=1
    two          crew=processes crew.workers=2 crew.threads=1
    one of two   crew=processes crew.workers=1 crew.threads=2: the same cores for one process

A round runs every side once, in an order that turns. The steady rate is that of the last three quarters of the
problems, when every worker has long been loaded; the total includes starting the command and loading the model.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.machine import machine, versions

SIDES = {"one": (1, 1), "two": (2, 1), "one of two": (1, 2)}
"""Processes, and threads of each."""
LOOK = 0.02
"""Seconds between looks at how many results there are; a run takes a thousand times as long."""


@dataclass(frozen=True)
class Case:
    """A command, and where its results come one by one."""

    words: tuple[str, ...]
    results: str
    """A file below the run folder, a line a problem."""


def cases(problems: int) -> dict[str, Case]:
    """What is measured; groups of 16, so that the last one each worker is at weighs little."""
    return {
        "pairs": Case(("pairs", f"limit={problems}", "n=8", "live=16", "max_tokens=200"), "finished.jsonl"),
        "vote": Case(
            ("eval", "model=tinymath", f"task.count={problems}", "decode=vote", "live=16", "decode.max_tokens=200"),
            "eval/tinymath-vote/attempts.partial.jsonl",
        ),
    }


@dataclass
class Rates:
    """Problems a second, a round each."""

    steady: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(cases(0)), choices=list(cases(0)))
    options = parser.parse_args()
    print(f"{machine()}; {versions()}; {options.problems} problems, medians of {options.rounds} rounds\n")
    print(f"{'':<8}{'side':<12}{'steady':>10}{'total':>10}   problems/s")
    for name in options.cases:
        rates = {side: Rates() for side in SIDES}
        for number in range(options.rounds):
            turn = list(SIDES)[number % len(SIDES) :] + list(SIDES)[: number % len(SIDES)]
            for side in turn:
                steady, total = run(cases(options.problems)[name], options.problems, *SIDES[side])
                rates[side].steady.append(steady)
                rates[side].total.append(total)
        for side, measured in rates.items():
            print(f"{name:<8}{side:<12}{median(measured.steady):>10.2f}{median(measured.total):>10.2f}")
        for kind in ("steady", "total"):
            ratios = [b / a for a, b in zip(getattr(rates["one"], kind), getattr(rates["two"], kind), strict=True)]
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{name:<8}two / one, {kind}: {median(ratios):.2f} (rounds: {shown})", flush=True)


def run(case: Case, problems: int, workers: int, threads: int) -> tuple[float, float]:
    """(steady, total) problems a second of one command."""
    folder = Path(tempfile.mkdtemp(prefix="stepdpo-crew-"))
    crew = ("crew=processes", f"crew.workers={workers}", f"crew.threads={threads}")
    command = [sys.executable, "-m", "stepdpo", *case.words, *crew, "run=x"]
    try:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        first: tuple[float, int] | None = None
        last = (began, 0)
        while process.poll() is None:
            done = _lines(folder / "runs" / "x" / case.results)
            if done > last[1]:
                last = (time.monotonic(), done)
                if first is None and done >= problems // 4:
                    first = last
            time.sleep(LOOK)
        ended = time.monotonic()
        assert process.stderr is not None
        if process.returncode or first is None or last[1] == first[1]:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}\n{process.stderr.read()}")
        return (last[1] - first[1]) / (last[0] - first[0]), problems / (ended - began)
    finally:
        shutil.rmtree(folder)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
