"""The demo: what is it worth to cut a solution at its first wrong step, rather than to compare whole solutions?

    python -m benchmarks.demo               one seed, with its report (`make demo`)
    python -m benchmarks.demo --seeds 5     every seed, and docs/demo.md (`make demo-seeds`)
    python -m benchmarks.demo --quick       the same commands at a fifth of the size, whose figures mean nothing
    python -m benchmarks.demo --grid        the settings of every method, on held-out problems (`make demo-grid`)

The base's own samples of 60 problems; seven ways of training on them; 600 fresh problems. Every part is a command of
`stepdpo`, two at a time, each with one core.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks import demo_page
from benchmarks.machine import machine, versions
from stepdpo.runtime.atomic_io import read_json, write_json

ROOT = Path("runs/demo")
PAGE = Path("docs/demo.md")
TEXT, CELLS = (Path(__file__).with_name(name) for name in ("demo_page.md", "demo_grid.json"))
TASK = "tinymath_long"
PROBLEMS = 60
PAIRS = (
    f"task={TASK}", "model=tinymath_long", "temperature=1.0", "max_tokens=200", "pairs.baselines=true",
    "pairs.extra_samples=7",
)  # fmt: skip
"""Seven further samples a problem take at least as many tokens as the step search takes."""
EVALUATION = (f"task={TASK}", "decode.max_tokens=200")
BASE, PAIRS_RUN, FOCUS = "base", "pairs", "step_dpo"
UPDATES = (("batch.pairs=16", "max_steps=30"), ("batch.pairs=32", "max_steps=15"))
"""The same work in many updates or in few."""
SFT_GRID = (("optim.lr=2e-5,5e-5,1e-4",),)
DPO_GRID = (("optim.lr=1e-4", "algo.beta=2,5"), ("optim.lr=5e-5", "algo.beta=2"))
"""With `UPDATES` six cells a method."""
GRID_SEED, HELDOUT = 100, 300
"""The pairs of the grid, far from those of any demo, and how many held-out problems a cell answers."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    name: str = ""
    problems: int = PROBLEMS
    evaluation: Sequence[str] = EVALUATION
    training: Sequence[str] = ()
    """Words for every training besides its experiment."""


WHOLE = Size()
QUICK = Size("quick-", 12, (*EVALUATION, "task.count=60"), ("max_steps=5",))


@dataclass(frozen=True)
class Method:
    """One way of training on the samples."""

    name: str
    experiment: str
    data: str
    """The file of the pairs' run."""
    grid: Sequence[Sequence[str]]
    """The words of each sweep of its settings."""


METHODS = (
    Method("instance_dpo", "demo_instance_dpo", "instance_pairs", DPO_GRID),
    Method("rejection_sampling", "demo_rejection_sampling", "right_solutions", SFT_GRID),
    Method("rejection_sampling_more", "demo_rejection_sampling_more", "more_right_solutions", SFT_GRID),
    Method("sft_search", "demo_sft_search", "searched_solutions", SFT_GRID),
    Method("sft_continuation", "demo_sft_continuation", "continuations", SFT_GRID),
    Method("sft_step", "demo_sft_step", "preferences", SFT_GRID),
    Method(FOCUS, "demo_step_dpo", "preferences", DPO_GRID),
)
"""In the order of the report; those that take longest come first, so that two at a time end together."""
ABOUT = {
    BASE: "nothing: the base",
    "instance_dpo": "whole right against whole wrong solutions (instance DPO)",
    "rejection_sampling": "whole right solutions (rejection sampling, SFT)",
    "rejection_sampling_more": "the same, of at least as many tokens as the step search took",
    "sft_search": "right whole solutions that the step search found (SFT)",
    "sft_continuation": "right steps and their verified rest (SFT)",
    "sft_step": "right steps alone (SFT)",
    FOCUS: "right step against wrong step (**step DPO**)",
}


def make_pairs(folder: Path, seed: int, problems: int = PROBLEMS) -> Path:
    """Everything that the methods train on, of one run: other problems with every seed."""
    some = (f"skip={problems * seed}", f"limit={problems}", f"seed={seed}")
    run(folder, PAIRS_RUN, "pairs", *PAIRS, *some, "force=true")
    return folder / PAIRS_RUN


def evaluate_base(folder: Path, size: Size) -> None:
    run(folder, BASE, "eval", *size.evaluation, "model=tinymath_long", "force=true")


def train(method: Method, folder: Path, pairs: Path, seed: int, size: Size) -> None:
    words = (f"experiment={method.experiment}", f"dataset={pairs / method.data}.jsonl", *size.training)
    run(folder, method.name, "train", *words, f"seed={seed}", "force=true")


def evaluate(method: Method, folder: Path, size: Size) -> None:
    run(folder, method.name, "eval", *size.evaluation)


def run(folder: Path, name: str, verb: str, *words: str) -> None:
    """Run a command of `stepdpo` on the run `name`; what it prints goes into a log beside it, shown on failure."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.{verb}.log"
    command = [sys.executable, "-m", "stepdpo", verb, *words, f"runs={folder}", f"run={name}"]
    with log.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment()).returncode
    if code:
        tail = "\n".join(log.read_text().splitlines()[-20:])
        raise SystemExit(f"{shlex.join(['stepdpo', *command[3:]])}\nfailed with code {code}:\n{tail}")
    right = f", {_accuracy(folder / name):.1f} % right" if verb == "eval" else ""
    print(f"  {verb:<7}{name:<24}{time.monotonic() - began:5.0f} s{right}", flush=True)


def _accuracy(run_folder: Path) -> float:
    return 100 * float(read_json(run_folder / "eval" / TASK / "summary.json")["accuracy"])


def environment() -> Mapping[str, str]:
    """One core a command, and nothing from the network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def one_seed(seed: int, size: Size = WHOLE) -> Path:
    """The pairs and the base side by side, then trainings, then evaluations, two at a time; returns the folder."""
    folder = ROOT / f"{size.name}seed{seed}"
    print(
        f"seed {seed}: {size.problems} problems, every method from the same samples (logs and runs in {folder})",
        flush=True,
    )
    with ThreadPoolExecutor(2) as two:
        pairs = two.submit(make_pairs, folder, seed, size.problems)
        base = two.submit(evaluate_base, folder, size)
        wait((pairs, base))
        # One queue: an evaluation may begin beside the last training, as those of one method are far apart in it.
        trained = [two.submit(train, method, folder, pairs.result(), seed, size) for method in METHODS]
        wait([*trained, *(two.submit(evaluate, method, folder, size) for method in METHODS)])
    return folder


def wait(jobs: Iterable[Any]) -> None:
    """Until all are done; after the first failure, or Ctrl-C, those that have not begun are left out."""
    left = list(jobs)
    try:
        for job in left:
            job.result()
    except BaseException:
        for job in left:
            job.cancel()
        raise


def costs(folder: Path) -> str:
    """A table of what each method was given."""
    files = read_json(folder / PAIRS_RUN / "summary.json")["files"]
    lines = [f"{'':<26}{'rows':>6}  generated tokens"]
    for method in METHODS:
        figures = files[method.data]
        lines.append(f"  {method.name:<24}{figures['rows']:>6,}  {figures['generated_tokens']:>16,}")
    return "\n".join(lines)


def report(folder: Path) -> None:
    """The product's own report over everything."""
    runs = [str(folder / name) for name in (BASE, *(method.name for method in METHODS))]
    words = ["report", *runs, "--focus", str(folder / FOCUS), "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "stepdpo", *words], env=environment(), check=True)


def grid() -> None:
    """Every cell of every method on held-out problems, with the pairs of a seed that no demo uses."""
    folder = ROOT / "grid"
    pairs = make_pairs(folder, GRID_SEED)
    with ThreadPoolExecutor(2) as two:
        wait(two.submit(_sweep, method, folder, pairs) for method in METHODS)
    cells = {method.name: list(_cells(folder / method.name)) for method in METHODS}
    write_json(CELLS, {"seed": GRID_SEED, "problems": HELDOUT, "machine": machine(), "cells": cells})
    for name, found in cells.items():
        for cell in found:
            print(f"  {name:<24}{' '.join(cell['words']):<60} {100 * cell['accuracy']:.1f} %")


def _sweep(method: Method, folder: Path, pairs: Path) -> None:
    """The cells of a method, as sweeps of Hydra's."""
    shutil.rmtree(folder / method.name, ignore_errors=True)
    with (folder / f"{method.name}.log").open("w") as out:
        for number, (settings, updates) in enumerate(itertools.product(method.grid, UPDATES)):
            words = [
                "train", "-m", f"experiment={method.experiment}", f"dataset={pairs / method.data}.jsonl", *updates,
                *settings, f"then=[{TASK}]", f"runs={folder / method.name}",
                f"then_with=task.split=heldout task.limit={HELDOUT} decode.max_tokens=200",
                f"hydra.sweep.dir={folder / method.name}/sweep{number}",
            ]  # fmt: skip
            command = [sys.executable, "-m", "stepdpo", *words]
            subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment(), check=True)
    print(f"  {method.name}", flush=True)


def _cells(folder: Path) -> Iterator[dict[str, Any]]:
    """The words of every job of a method's sweeps, and its accuracy."""
    for job in sorted(folder.glob("sweep*/job-*")):
        config = OmegaConf.load(job / "config.yaml")
        keys = ("algo.beta", "optim.lr", "batch.pairs", "max_steps")
        words = {key: OmegaConf.select(config, key) for key in keys}
        accuracy = read_json(job / "eval" / TASK / "summary.json")["accuracy"]
        yield {"words": [f"{key}={value}" for key, value in words.items() if value is not None], "accuracy": accuracy}


def page(folders: Sequence[Path], seconds: Sequence[float]) -> str:
    """docs/demo.md."""
    names = [BASE, *(method.name for method in METHODS)]
    seeds = [demo_page.read(folder, names) for folder in folders]
    files = [read_json(folder / PAIRS_RUN / "summary.json")["files"] for folder in folders]
    cells = read_json(CELLS)
    known = versions()
    parts = {
        "accuracies": demo_page.accuracies(seeds, names, ABOUT),
        "comparisons": demo_page.comparisons(seeds, names, FOCUS, ABOUT),
        "mistakes": demo_page.mistakes(seeds, names, ABOUT),
        "costs": demo_page.costs(files, {method.name: method.data for method in METHODS}, ABOUT),
        "grids": demo_page.grids(cells["cells"], ABOUT),
        "count": str(len(folders)),
        "heldout": str(cells["problems"]),
        "machine": f"{machine()}; {', '.join(f'{name} {text}' for name, text in known.items())}",
        "seconds": f"{min(seconds):.0f} to {max(seconds):.0f}",
    }
    return TEXT.read_text().format(**parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=0, help="run so many seeds and write docs/demo.md")
    parser.add_argument("--quick", action="store_true", help="the same commands on less, to see that they work")
    parser.add_argument("--grid", action="store_true", help="try the settings of every method on held-out problems")
    given = parser.parse_args()
    began = time.monotonic()
    if given.grid:
        grid()
    elif given.seeds:
        folders, seconds = [], []
        for seed in range(given.seeds):
            start = time.monotonic()
            folders.append(one_seed(seed))
            seconds.append(time.monotonic() - start)
        PAGE.write_text(page(folders, seconds))
        print(f"{PAGE} is written", flush=True)
    else:
        folder = one_seed(0, QUICK if given.quick else WHOLE)
        print(costs(folder), flush=True)
        report(folder)
    print(f"{time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the commands have heard of it themselves
