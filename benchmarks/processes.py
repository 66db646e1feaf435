"""What a second process is worth: `stepdpo train` under DeepSpeed on one process and on two, one thread each.

Runs alternate (one, two, one, two, ...), and the medians are compared. Two figures a run, both over the updates after
the first few: pairs per second by the clock, as metrics.jsonl has them; and pairs per CPU second of the busiest worker.
The second leaves out waiting, for the other process as for a core that another program holds, so it says what the
clock would at best.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MODEL = ("model=fresh", "model.hidden_size=256", "model.layers=6", "model.intermediate_size=704")
TRAINING = (
    "dataset=tinymath", "level=step", "template=alpaca", "algo=dpo", "~recipe", "engine=zero", "engine.device=cpu",
    "log_every=1", "eval_every=0", "save_every=0", "dataset.heldout=0", "optim.lr=1e-4",
)  # fmt: skip
COLUMNS = ("1", "2", "ratio")


@dataclass(frozen=True)
class Run:
    pairs_per_second: float
    pairs_per_cpu_second: float
    """By the CPU time of the busiest worker."""


def main() -> None:
    """Print the table; with --out also write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--skip", type=int, default=2, help="first updates that do not count")
    parser.add_argument("--pairs", type=int, default=64, help="pairs an update")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a micro-batch")
    parser.add_argument("--out", type=Path)
    parser.add_argument("words", nargs="*", help="further words for `stepdpo train`")
    options = parser.parse_args()
    found = []
    for stage in options.stages:
        runs: dict[int, list[Run]] = {1: [], 2: []}
        for number in range(options.repeats):
            for processes in (1, 2):
                runs[processes].append(_run(processes, stage, options))
                print(f"stage {stage} repeat {number + 1} processes {processes}: {runs[processes][-1]}", flush=True)
        found.append(_row(stage, runs))
    _print(found)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def _run(processes: int, stage: int, options: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory() as root:
        words = [
            *MODEL, *TRAINING, f"engine.stage={stage}", f"engine.processes={processes}", f"batch.pairs={options.pairs}",
            f"batch.tokens={options.tokens}", f"max_steps={options.updates}", f"runs={root}", "run=x",
            f"dataset.limit={options.pairs * options.updates}", *options.words,
        ]  # fmt: skip
        # One thread each, or a single process would use the cores that the second one is given.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "stepdpo", "train", *words]
        with (Path(root) / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        began, ended = (_at(Path(root) / "x", process, update) for update in (options.skip, options.updates))
        if process.wait():
            raise SystemExit((Path(root) / "log").read_text())
        counted = [line for line in _lines(Path(root) / "x") if options.skip < line["step"] <= options.updates]
        pairs = options.pairs * len(counted)
        busiest = max(ended[pid] - began[pid] for pid in began)
        # By the busiest worker: processes wait for each other, so it is the one that sets the pace.
        return Run(pairs / sum(options.pairs / line["pairs_per_second"] for line in counted), pairs / busiest)


def _at(folder: Path, process: subprocess.Popen[bytes], update: int) -> dict[int, float]:
    """CPU seconds of every worker once `update` is in the log."""
    while process.poll() is None:
        times = _worker_seconds(process.pid)
        if any(line["step"] >= update for line in _lines(folder)):
            return times
        time.sleep(0.02)
    raise SystemExit(f"the training ended before update {update} was seen: {(folder.parent / 'log').read_text()}")


def _worker_seconds(pid: int) -> dict[int, float]:
    found = {}
    for child in psutil.Process(pid).children(recursive=True):
        try:
            words = child.cmdline()
            if "stepdpo.cli.worker" in words and not any(word.startswith("deepspeed.launcher") for word in words):
                found[child.pid] = sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
    return found


def _lines(folder: Path) -> list[dict[str, float]]:
    path = folder / "metrics.jsonl"
    # Without what follows the last newline, which is being written.
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, lines) if "pairs_per_second" in line]


def _row(stage: int, runs: dict[int, list[Run]]) -> dict[str, float]:
    def median(processes: int, figure: str) -> float:
        return float(statistics.median(getattr(run, figure) for run in runs[processes]))

    row: dict[str, float] = {"stage": stage, "repeats": len(runs[1])}
    for figure in ("pairs_per_second", "pairs_per_cpu_second"):
        one, two = median(1, figure), median(2, figure)
        row |= {f"{figure}/1": one, f"{figure}/2": two, f"{figure}/ratio": two / one}
    return row


def _print(found: Sequence[dict[str, float]]) -> None:
    print("\nstage   by the clock: 1      2  ratio   by CPU time: 1      2  ratio   (pairs a second, medians)")
    for row in found:
        figures = [row[f"{figure}/{n}"] for figure in ("pairs_per_second", "pairs_per_cpu_second") for n in COLUMNS]
        print("{:>5} {:>15.2f} {:>6.2f} {:>6.2f} {:>16.2f} {:>6.2f} {:>6.2f}".format(row["stage"], *figures))


if __name__ == "__main__":
    main()
