"""What every loss makes of one base's own samples, beside supervised controls; `make bench-losses` writes the page.

    python -m benchmarks.losses             the grids, then three seeds, then docs/losses.md

The base, the samples and the trainings are the demo's (`benchmarks.demo`): 60 problems, 30 updates of 16 examples.
Every entry has four settings, of which one is chosen on held-out problems. A run that has finished is not made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import demo, losses_page
from benchmarks.machine import machine, versions
from stepdpo.runtime.atomic_io import read_json, write_json

ROOT = Path("runs/losses")
PAGE = Path("docs/losses.md")
FOUND = Path(__file__).with_name("losses.json")
"""What was measured."""
HELDOUT, TEST = ("task.split=heldout", "task.count=300"), ("task.count=1000",)
"""The problems that a setting, and a loss, is judged by."""
STEP = ("level=step",)
WHOLE = ("level=instance",)
REST = ("level=instance", "level.prefix=prompt")
RATES = "5e-5 1e-4"


@dataclass(frozen=True)
class Entry:
    """A loss on a file of the base's samples."""

    algo: str
    """And what else stays as it is, as words of a command."""
    level: Sequence[str]
    data: str
    grid: Mapping[str, str]
    """Of each setting its values; all of their products are tried."""
    about: str

    def cells(self) -> list[tuple[str, ...]]:
        """The words of every setting."""
        values = [[f"{name}={value}" for value in given.split()] for name, given in self.grid.items()]
        return list(product(*values))

    def words(self, pairs: Path) -> tuple[str, ...]:
        return (
            *f"algo={self.algo}".split(), *self.level, f"dataset={pairs / self.data}.jsonl", "model=tinymath_long",
            "engine=local", "batch.pairs=16", "max_steps=30", "guard=none",
        )  # fmt: skip


def _grid(name: str, values: str, rates: str = RATES) -> dict[str, str]:
    return {f"algo.{name}": values, "optim.lr": rates}


SFT = {"optim.lr": "2e-5 5e-5 1e-4 2e-4"}
PAIRS, WHOLES = "preferences", "instance_pairs"
CONTROLS = {
    "sft_step": Entry("sft", STEP, PAIRS, SFT, "SFT on the chosen steps"),
    "sft_continuation": Entry("sft", REST, "continuations", SFT, "SFT on the chosen steps and their verified rest"),
    "rejection_sampling": Entry("sft", WHOLE, "right_solutions", SFT, "SFT on right whole solutions"),
}
ENTRIES = {
    **CONTROLS,
    "dpo": Entry("dpo", STEP, PAIRS, _grid("beta", "2 5"), "steps"),
    "dpo, sft_weight": Entry("dpo algo.beta=2", STEP, PAIRS, _grid("sft_weight", "0.3 1"), "steps"),
    "dpo, sft_scope=rest": Entry(
        "dpo algo.beta=2 algo.sft_scope=rest", STEP, PAIRS, _grid("sft_weight", "0.3 1"), "steps and the chosen rest"
    ),
    "tdpo": Entry("tdpo", STEP, PAIRS, _grid("beta", "2 5"), "steps"),
    "tdpo, sft_scope=rest": Entry(
        "tdpo algo.beta=2 algo.sft_scope=rest", STEP, PAIRS, _grid("sft_weight", "0.3 1"), "steps and the chosen rest"
    ),
    "kto": Entry("kto", STEP, PAIRS, _grid("beta", "0.5 2"), "steps"),
    "nca": Entry("nca", STEP, PAIRS, _grid("beta", "0.5 2"), "steps"),
    "dpop": Entry("dpop algo.penalty=5", STEP, PAIRS, _grid("beta", "0.5 2"), "steps"),
    "simpo": Entry("simpo algo.gamma_beta_ratio=0.1", STEP, PAIRS, _grid("beta", "10 40"), "steps"),
    "orpo": Entry("orpo", STEP, PAIRS, _grid("alpha", "0.1 1"), "steps"),
    "cpo": Entry("cpo", STEP, PAIRS, _grid("beta", "0.1 1"), "steps"),
    "wpo": Entry("wpo", STEP, PAIRS, _grid("beta", "2 5"), "steps"),
    "svpo": Entry("svpo", STEP, PAIRS, _grid("beta", "2 5"), "steps"),
    "dpo, whole solutions": Entry("dpo", WHOLE, WHOLES, _grid("beta", "2 5"), "whole solutions"),
    "stepweighted": Entry(
        "stepweighted algo.weigh=first_error", WHOLE, WHOLES, _grid("beta", "2 5"),
        "whole solutions, of the wrong ones the first wrong step",
    ),
    "cdpo": Entry(
        "cdpo", WHOLE, "critical", _grid("beta", "2 5"), "whole solutions, critical tokens of the wrong ones"
    ),
    "fullstep": Entry("fullstep", WHOLE, WHOLES, _grid("beta", "0.5 2"), "whole solutions with labels of steps"),
    "stepkto": Entry("stepkto", WHOLE, WHOLES, _grid("beta", "0.5 2"), "whole solutions with labels of steps"),
    "tpo": Entry("tpo", WHOLE, WHOLES, _grid("beta", "2 5"), "all solutions of a problem"),
    "outcome": Entry("outcome", WHOLE, WHOLES, _grid("beta", "0.5 2"), "whole solutions, right or wrong"),
    "value": Entry("value", WHOLE, WHOLES, _grid("weight", "0.01 0.1"), "right solutions, and the value of every step"),
}  # fmt: skip
"""All but 'prm', which trains no policy; 'cdpo' reads what `stepdpo pairs pairs=critical` makes of whole solutions."""
LONG_FIRST = sorted(ENTRIES, key=lambda name: ENTRIES[name].level == STEP)
"""So that two at a time end together."""


def make_pairs(folder: Path, seed: int) -> Path:
    """Everything that the entries train on: the demo's files, and whole pairs with weights of critical tokens."""
    pairs = folder / demo.PAIRS_RUN
    if not (pairs / "preferences.jsonl").exists():
        demo.make_pairs(folder, seed)
    if not (pairs / "critical.jsonl").exists():
        whole = ("algo=sft", "optim.lr=1e-4", *ENTRIES["cdpo"].words(pairs)[1:])
        whole = tuple(f"dataset={pairs / WHOLES}.jsonl" if word.startswith("dataset=") else word for word in whole)
        for side, swap in (("positive", "false"), ("negative", "true")):
            demo.run(folder, side, "train", *whole, f"level.swap={swap}", f"seed={seed}", "force=true")
        models = [f"pairs.{side}={folder / side}/model" for side in ("positive", "negative")]
        path = f"pairs.path={pairs / WHOLES}.jsonl"
        demo.run(folder, "weighed", "pairs", "pairs=critical", path, *models, "force=true")
        (folder / "weighed/preferences.jsonl").replace(pairs / "critical.jsonl")
    return pairs


def evaluate_base(folder: Path) -> None:
    if not _done(folder / demo.BASE):
        words = (*demo.EVALUATION, *TEST, "model=tinymath_long", "force=true")
        demo.run(folder, demo.BASE, "eval", *words)


def _done(run: Path) -> bool:
    return (run / "eval" / demo.TASK / "summary.json").exists()


def sweep(name: str, folder: Path, pairs: Path) -> None:
    """Every setting of an entry, each with its answers to held-out problems."""
    entry = ENTRIES[name]
    for number, cell in enumerate(entry.cells()):
        if not _done(_cell(folder, name, number)):
            _train(entry, cell, pairs, 0, _cell(folder, name, number), HELDOUT)
    print(f"  {name:<24}{' '.join(f'{100 * _accuracy(_cell(folder, name, n)):.1f}' for n in range(4))}", flush=True)


def _cell(folder: Path, name: str, number: int) -> Path:
    return losses_page.folder_of(folder, name) / f"cell{number}"


def _accuracy(run: Path) -> float:
    return float(read_json(run / "eval" / demo.TASK / "summary.json")["accuracy"])


def _train(entry: Entry, cell: Sequence[str], pairs: Path, seed: int, run: Path, asked: Sequence[str]) -> None:
    """Train, and answer the problems that `asked` names."""
    words = (*entry.words(pairs), *cell, f"seed={seed}", "force=true")
    demo.run(run.parent, run.name, "train", *words)
    demo.run(run.parent, run.name, "eval", *demo.EVALUATION, *asked)


def chosen(name: str, folder: Path) -> int:
    """Which setting is best on held-out problems; of equal ones the first."""
    found = [_accuracy(_cell(folder, name, number)) for number in range(len(ENTRIES[name].cells()))]
    return found.index(max(found))


def one_seed(seed: int, grid: Path, two: ThreadPoolExecutor) -> Path:
    folder = ROOT / f"seed{seed}"
    pairs = two.submit(make_pairs, folder, seed)
    demo.wait([pairs, two.submit(evaluate_base, folder)])
    demo.wait([two.submit(_test, name, folder, pairs.result(), seed, grid) for name in LONG_FIRST])
    return folder


def _test(name: str, folder: Path, pairs: Path, seed: int, grid: Path) -> None:
    run, entry = losses_page.folder_of(folder, name), ENTRIES[name]
    if not _done(run):
        _train(entry, entry.cells()[chosen(name, grid)], pairs, seed, run, TEST)
    print(f"  seed {seed}  {name:<24}{100 * _accuracy(run):.1f} %", flush=True)


def settings(grid: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every entry all settings with what they reach on held-out problems, and which was chosen."""
    for name, entry in ENTRIES.items():
        cells = [
            {"words": list(cell), "accuracy": _accuracy(_cell(grid, name, number))}
            for number, cell in enumerate(entry.cells())
        ]
        yield name, {"cells": cells, "chosen": chosen(name, grid)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    began = time.monotonic()
    grid = ROOT / "grid"
    with ThreadPoolExecutor(2) as two:
        pairs = make_pairs(grid, demo.GRID_SEED)
        demo.wait([two.submit(sweep, name, grid, pairs) for name in LONG_FIRST])
        folders = [one_seed(seed, grid, two) for seed in range(given.seeds)]
    known = ", ".join(f"{name} {text}" for name, text in versions().items())
    write_json(FOUND, {"machine": f"{machine()}; {known}", "heldout": 300, "grid": dict(settings(grid))})
    about = {name: entry.about for name, entry in ENTRIES.items()}
    PAGE.write_text(losses_page.page(folders, read_json(FOUND), about, list(CONTROLS)))
    print(f"{PAGE} is written; {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the commands have heard of it themselves
