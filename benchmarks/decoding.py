"""What decoders are worth and cost on tinymath, and what a greedy evaluation takes; `make bench-decoding`.

    python -m benchmarks.decoding               everything, benchmarks/decoding.json, docs/decoding.md and its picture
    python -m benchmarks.decoding --quick       the same in five minutes, with figures that say nothing; writes no page
    python -m benchmarks.decoding --only speed  one part of it again

Models are trained by the script, their settings chosen on held-out problems; a run that has finished is not made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import decoding_localise, decoding_page, decoding_speed
from benchmarks import decoding_runs as runs
from benchmarks.decoding_heads import heads
from benchmarks.decoding_runs import FULL, QUICK, Size
from benchmarks.machine import machine, versions
from stepdpo.evaluation.statistics import stderr
from stepdpo.report.tables import GRADER, compare_paired, read_evaluations
from stepdpo.runtime.atomic_io import read_json, write_json

FOUND = Path(__file__).with_name("decoding.json")
"""What was measured."""
BASE = "tinymath"
DPO = ("algo=dpo", "algo.beta=2", "level=step", "optim.lr=1e-4")
"""As the demo's grid chose it on the other miniature."""


CURVES = {"vote": "majority", "best": "best"}
"""What of `at_k` a row is at fewer samples, by the first word of its name."""


@dataclass(frozen=True)
class Row:
    """A decoder of a model, held against the greedy answers of the same model."""

    name: str
    about: str
    model: str
    words: tuple[str, ...]
    against: str = ""
    """The name of a row before it; empty for greedy decoding itself."""


def rows(head: str, how: str, dpo: str) -> list[Row]:
    """`head` and `dpo`: models, of which the first has a value head; `how`: the word for its aggregate."""
    value, own = ("scorer=prm", f"scorer.path={head}", how), ("scorer=value_head", how)
    implicit, likely = ("scorer=implicit",), ("scorer=logprob", "scorer.aggregate=min")
    beam, best = ("decode=step_beam",), ("decode=best_of_n",)
    return [
        Row("greedy", "greedy", BASE, ("decode=greedy",)),
        Row("vote", "vote, k = 8", BASE, ("decode=vote",), "greedy"),
        Row("best_value", "best of 8 by the value head", BASE, (*best, *value), "greedy"),
        Row("best_logprob", "best of 8 by log-probability", BASE, (*best, *likely), "greedy"),
        Row("beam_value", "step beam (3, 5) by the value head", BASE, (*beam, *value), "greedy"),
        Row("beam_logprob", "step beam (3, 5) by log-probability", BASE, (*beam, *likely), "greedy"),
        Row("mcts_value", "tree search by the value head", BASE, ("decode=mcts", *value), "greedy"),
        Row("own", "greedy, the model of the head itself", head, ("decode=greedy",)),
        Row("beam_own", "step beam (3, 5) by its own head", head, (*beam, *own), "own"),
        Row("dpo", "greedy, after step DPO", dpo, ("decode=greedy",)),
        Row("best_implicit", "best of 8 by its implicit reward", dpo, (*best, *implicit), "dpo"),
        Row("beam_implicit", "step beam (3, 5) by its implicit reward", dpo, (*beam, *implicit), "dpo"),
    ]  # fmt: skip


def decoders(folder: Path, size: Size, only: Sequence[str] = ()) -> dict[str, Any]:
    """Every row, or some: what it got right, what it took, and what it is above greedy answers."""
    grid = heads(folder, size)
    head, how = folder / grid["chosen"]["run"] / "model", f"scorer.aggregate={grid['chosen']['aggregate']}"
    preferring = runs.preferring(folder, "step_dpo", size, DPO, "preferences")
    found = []
    for row in rows(str(head), how, str(preferring / "model")):
        if only and row.name not in only:
            continue
        count = {"decode=step_beam": size.beamed, "decode=mcts": size.walked}.get(row.words[0], size.problems)
        run = runs.evaluated(folder / "rows", row.name, row.model, row.words, (f"task.count={count}",))
        found.append(_figures(row, run, folder / "rows"))
        print(f"    {row.about:<50}{100 * found[-1]['accuracy']:.1f} %", flush=True)
    return {"heads": grid, "rows": found, "searched": size.searched, "epochs": size.epochs,
            "heldout": size.heldout}  # fmt: skip


def _figures(row: Row, run: Path, folder: Path) -> dict[str, Any]:
    (mine,) = read_evaluations(run)
    n, block, cost = len(mine.attempts), mine.summary["graders"][GRADER], mine.summary["cost"]
    figures: dict[str, Any] = {
        "name": row.name, "about": row.about, "n": n, "accuracy": mine.summary["accuracy"],
        "stderr": block.get("stderr", stderr(round(block["correct"]), n)),
        **{name: one["mean"] for name, one in cost.items()},
        "cpu": runs.cost_of(run)["cpu"] / n,
    }  # fmt: skip
    if (name := CURVES.get(row.name.partition("_")[0])) and "at_k" in mine.summary:
        figures["curve"] = mine.summary["at_k"][name]
    if row.against:
        (other,) = read_evaluations(folder / row.against)
        pair = compare_paired(other, mine, GRADER)
        figures["against"] = {
            "name": row.against, "delta": pair.delta, "gained": pair.gained, "lost": pair.lost, "p": pair.p_value
        }  # fmt: skip
    return figures


Part = Callable[[Path, Size], dict[str, Any]]
PARTS: Mapping[str, Part] = {
    "decoders": decoders,
    "speed": decoding_speed.speed,
    "resumed": decoding_speed.resumed,
    "localisation": decoding_localise.localise,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few problems of everything")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--runs", type=Path, help="where the runs are; finished ones are kept")
    parser.add_argument("--found", type=Path, help="where the figures go; with --quick none are kept otherwise")
    parser.add_argument("--rows", nargs="*", default=(), help="some of the decoders, by the names of their runs")
    parser.add_argument("--rounds", type=int, help="of a greedy evaluation and `generate` in turn")
    given = parser.parse_args()
    began = time.monotonic()
    size = QUICK if given.quick else FULL
    size = replace(size, rounds=given.rounds or size.rounds)
    folder = (given.runs or Path("runs/decoding-quick" if given.quick else "runs/decoding")).absolute()
    kept = given.found or (folder / "decoding.json" if given.quick else FOUND)
    known = ", ".join(f"{name} {text}" for name, text in versions().items())
    parts: dict[str, Part] = {**PARTS, "decoders": partial(decoders, only=given.rows)}
    for part in given.only:
        print(part, flush=True)
        # Part by part, so that what was measured is not lost with what comes after it.
        found = {**(read_json(kept) if kept.exists() else {}), part: parts[part](folder, size)}
        write_json(kept, {**found, "machine": f"{machine()}; {known}"})
    print("\n\n".join(decoding_page.tables(read_json(kept)).values()))
    if not given.quick:
        decoding_page.write(read_json(kept))
    print(f"{time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the commands have heard of it themselves
