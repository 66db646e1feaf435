"""How well a tree search tells right steps from wrong ones, held against tinymath's exact checker. `make bench-search`.

A pair of siblings is ranked when exactly one of them is right, the steps before them being right, and both were walked
through at least 4 times; it is ranked well when the right one has the larger Q. A pair of steps that was *made* is
correct when its chosen step is right and its rejected step is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.core.config import build
from stepdpo.core.package_data import conf
from stepdpo.core.steps import split_steps
from stepdpo.core.types import Preference, Problem
from stepdpo.data.preference_file import from_row
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.tree.tree import Tree
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

CHECK = TinymathChecker().first_error
LEAST = 4
"""Visits on both sides of a ranked pair."""
WELL, SOLVED, UNSOLVED = "well", "right answer below the wrong step", "no right answer below either"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--walks", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--words", nargs="*", default=[], help="for the command, such as pairs.weight=2")
    options = parser.parse_args()
    for number, walks in enumerate(options.walks):
        row = measured(options.problems, [f"pairs.iterations={walks}", "pairs.root_factor=1", *options.words])
        if not number:
            print("| walks | " + " | ".join(row) + " |\n|" + "---|" * (len(row) + 1), flush=True)
        print(f"| {walks} | " + " | ".join(row.values()) + " |", flush=True)


def measured(count: int, words: Sequence[str]) -> dict[str, str]:
    """One run of the command, and what the checker says of it."""
    with initialize_config_dir(str(conf()), version_base="1.3"):
        given = ["pairs=mcts", f"limit={count}", "live=100", "sampler.device=cpu", *words]
        node: Any = OmegaConf.to_container(compose("pairs", overrides=given), resolve=True)
    spec = build({key: value for key, value in node.items() if key not in LAUNCH_KEYS})
    with tempfile.TemporaryDirectory() as folder:
        began, busy = time.monotonic(), time.process_time()
        counts = build_pairs(spec, Path(folder) / "run")
        seconds, busy = time.monotonic() - began, time.process_time() - busy
        trees = [Tree.from_row(row) for row in _rows(Path(folder) / "run" / "trees.jsonl")]
        pairs = [from_row(row) for row in _rows(Path(folder) / "run" / "preferences.jsonl")]
    known = {problem.id: problem for problem in problems("preference", count)}
    ranks = Counter[str]()
    for tree in trees:
        ranks.update(ranked(tree, known[tree.problem]))
    made = Counter(verdict(pair, known[pair.meta["problem"]]) for pair in pairs)
    return {
        "ranked well": share(ranks[WELL], ranks.total()),
        SOLVED: str(ranks[SOLVED]),
        UNSOLVED: str(ranks[UNSOLVED]),
        "pairs": str(len(pairs)),
        "correct": share(made["correct"], len(pairs)),
        "chosen right": share(made["correct"] + made["both right"], len(pairs)),
        "problems with pairs": str(len({pair.meta["problem"] for pair in pairs})),
        "tokens": f"{counts['tokens']:,}",
        "CPU s": f"{busy:.0f}",
        "s": f"{seconds:.0f}",
    }


def ranked(tree: Tree, problem: Problem) -> Iterator[str]:
    """How each pair of siblings that the checker can tell apart is ranked: WELL, or why not."""
    right = rightness(tree, problem)
    for parent, children in enumerate(tree.children):
        if not right[parent]:
            continue
        for one, other in itertools.combinations(children, 2):
            if right[one] == right[other] or min(tree.nodes[one].visits, tree.nodes[other].visits) < LEAST:
                continue
            better, worse = (one, other) if right[one] else (other, one)
            if _q(tree, better) - _q(tree, worse) > 1e-9:
                yield WELL
            else:
                yield SOLVED if any(tree.nodes[i].correct for i in tree.endings(worse)) else UNSOLVED


def rightness(tree: Tree, problem: Problem) -> list[bool]:
    """Whether every step up to and with each node is right."""
    found = [True]
    for number in range(1, len(tree.nodes)):
        before = found[tree.nodes[number].parent]
        found.append(before and CHECK(problem, split_steps(tree.text(number))[1]) is None)
    return found


def verdict(pair: Preference, problem: Problem) -> str:
    """Of a pair that was made: whether the chosen step is right and the rejected one wrong."""
    first = len(split_steps(pair.prefix)[1]) - 1
    chosen, rejected = (CHECK(problem, split_steps(pair.prefix + side)[1]) for side in (pair.chosen, pair.rejected))
    if any(error is not None and error < first for error in (chosen, rejected)):
        return "after a wrong step"
    if chosen is None:
        return "both right" if rejected is None else "correct"
    return "reversed" if rejected is None else "both wrong"


def share(part: int, of: int) -> str:
    """As a percentage, with its standard error and the number."""
    if not of:
        return "-"
    p = part / of
    return f"{p:.1%} ± {sqrt(p * (1 - p) / of):.1%} (n {of:,})"


def _q(tree: Tree, number: int) -> float:
    found = tree.value(number)
    return 0.0 if found is None else found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


if __name__ == "__main__":
    main()
