"""Ways of making pairs at about equal generated tokens: what they yield, how much of it is right, what training on it
gives. `python -m benchmarks.methods [FOLDER]` (half an hour on two cores); the folder's finished runs are used again.

One seed, the embedded miniature, one set of training settings for all: a first look, not a study.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.oracle import row
from stepdpo.report.tables import compare_paired, read_evaluations

METHODS: dict[str, tuple[Sequence[str], str]] = {
    "siblings": (("pairs=siblings", "limit=750"), "step"),
    "localise": (("pairs=localise", "judge=rollouts", "limit=300"), "step"),
    "rollouts": (("pairs=rollouts", "limit=150"), "step"),
    "mcts": (("pairs=mcts", "limit=480"), "step"),
    "sampled": (("pairs=sampled", "limit=950"), "instance"),
}
"""Words of each method and the level it is trained at; limits are chosen so that tokens come out near 600,000."""
TRAINING = ("engine=local", "algo.beta=4.0", "optim.lr=1e-4", "epochs=2", "then=[tinymath]", "track=none")
HEAD = ("method", "pairs", "problems", "rejected right", "chosen right", "both", "tokens", "s", "right pairs a s",
        "accuracy before", "after", "p")  # fmt: skip


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "stepdpo", *words], check=True)


def line(name: str, root: Path) -> list[str]:
    """Make the pairs, train on them, and say what came of it."""
    words, level = METHODS[name]
    made, trained = root / f"{name}-pairs", root / f"{name}-train"
    if not (made / "summary.json").exists():
        command("pairs", *words, f"runs={root}", f"run={made.name}", "max_tokens=200")
    if not (trained / "report.json").exists():
        data = f"dataset.path={made / 'preferences.jsonl'}"
        command("train", "dataset=jsonl", data, f"level={level}", *TRAINING, f"runs={root}", f"run={trained.name}")
    _, pairs, problems, *shares, tokens, seconds = row(made)
    rate = int(pairs.replace(",", "")) * float(shares[-1].rstrip("%")) / 100 / max(1.0, float(seconds))
    return [name, pairs, problems, *shares, tokens, seconds, f"{rate:.2f}", *accuracies(trained, root)]


def accuracies(trained: Path, root: Path) -> list[str]:
    """Before and after, with standard errors, and the exact paired p."""
    (after,) = read_evaluations(trained)
    (before,) = read_evaluations(root / base_of(trained))
    cells = []
    for one in (before, after):
        right = [attempt.strict.verdict == "correct" for attempt in one.attempts]
        share = sum(right) / len(right)
        cells.append(f"{100 * share:.1f} ± {100 * (share * (1 - share) / len(right)) ** 0.5:.1f} % (n {len(right)})")
    return [*cells, f"{compare_paired(before, after, 'strict').p_value:.2g}"]


def base_of(trained: Path) -> str:
    """The folder of the base's evaluation, beside the run."""
    summary: dict[str, Any] = json.loads(next(trained.glob("eval/*/summary.json")).read_text())
    return str(summary["base"])


def main(arguments: Sequence[str]) -> None:
    root = Path(arguments[0] if arguments else "runs/methods").resolve()
    lines = [line(name, root) for name in METHODS]
    print(f"\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for cells in lines:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
