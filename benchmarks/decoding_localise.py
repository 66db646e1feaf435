"""What points at the first wrong step of the base's own wrong answers: rewards of trained models, values, roll-outs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import decoding_runs as runs
from benchmarks.decoding_heads import heads
from benchmarks.decoding_runs import TASK, TOKENS, Size
from benchmarks.values import MINIATURES, Solution, by_logps, by_rollouts
from stepdpo.core.steps import split_steps
from stepdpo.evaluation.statistics import mcnemar, wilson
from stepdpo.runtime.atomic_io import read_json, read_jsonl, write_json
from stepdpo.runtime.run_folder import INSPECT, INSPECTED
from stepdpo.tinymath.problems import problems

ROLLOUTS = 8
"""From after every step."""
LOSSES = {
    "step DPO": ("step_dpo", ("algo=dpo", "algo.beta=2", "level=step", "optim.lr=1e-4"), "preferences"),
    "step TDPO": ("step_tdpo", ("algo=tdpo", "algo.beta=2", "level=step", "optim.lr=1e-4"), "preferences"),
    "instance DPO": ("instance_dpo", ("algo=dpo", "algo.beta=2", "level=instance", "optim.lr=5e-5"), "instance_pairs"),
}
"""Run, words and file of pairs; settings are the demo's, of the other miniature. The first is what others are held
against."""
SAMPLES = ("writer=reference", "samples=2", "temperature=1", "show=0")
Scores = Sequence[Sequence[float]]
"""Of every solution a number a step."""


def localise(folder: Path, size: Size) -> dict[str, Any]:
    """How often the lowest score, and the steepest fall of a value, is that of the first wrong step."""
    looked = {
        name: inspected(runs.preferring(folder, run, size, words, file), size.inspected)
        for name, (run, words, file) in LOSSES.items()
    }
    chosen = heads(folder, size)["chosen"]["run"]
    looked["value head"] = inspected(folder / chosen, size.inspected)
    first = next(iter(looked.values()))
    texts = [[step["text"] for step in row["response"]["steps"]] for row in first]
    for name, found in looked.items():
        if [[step["text"] for step in row["response"]["steps"]] for row in found] != texts:
            raise ValueError(f"{name} was asked about other solutions")
    made, mini = solutions(first, size.inspected), MINIATURES[TASK]
    rows = {}
    for name in LOSSES:
        rows[name] = rules({what: read(looked[name], what) for what in ("sum", "mean")}, made)
    rows["value head"] = rules({"value": read(looked["value head"], "value")}, made)
    rows["the base's own log-probability"] = rules({"sum": by_logps(mini, made)}, made)
    shares, tokens = rolled(folder, made)
    rows[f"{ROLLOUTS} roll-outs a step"] = rules({"value": shares}, made)
    blind = {"always the first": [one.error == 0 for one in made],
             "always the last": [one.error == len(one.steps) - 1 for one in made]}  # fmt: skip
    hits = {**rows, **{name: {"place": own} for name, own in blind.items()}}
    compared = next(iter(next(iter(rows.values())).values()))
    return {
        "problems": size.inspected,
        "n": len(made),
        "steps": mean(len(one.steps) for one in made),
        "chance": mean(1 / len(one.steps) for one in made),
        "rollout_tokens": tokens / len(made),
        "rows": {name: {rule: _rate(own, compared) for rule, own in by_rule.items()} for name, by_rule in hits.items()},
    }


def inspected(run: Path, count: int) -> list[dict[str, Any]]:
    """The base's wrong answers of several steps, as the run sees them."""
    done = run.parent / f"{run.name}.inspected.json"
    if not done.exists():
        words = (str(run), f"task={TASK}", f"limit={count}", f"max_tokens={TOKENS}", *SAMPLES)
        command = [sys.executable, "-m", "stepdpo", "inspect", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=runs.environment())
        write_json(done, {"problems": count})
    rows = read_jsonl(run / INSPECT / TASK / INSPECTED)
    return [row for row in rows if row["response"]["first_error"] is not None and len(row["response"]["steps"]) > 1]


def solutions(rows: Sequence[Mapping[str, Any]], count: int) -> list[Solution]:
    """With the exact checker's first wrong step."""
    known = {problem.question: problem for problem in problems("test", count)}
    found = []
    for row in rows:
        head, steps = split_steps("".join(step["text"] for step in row["response"]["steps"]))
        found.append(Solution(known[row["question"]], head, tuple(steps), row["response"]["first_error"]))
    return found


def read(rows: Sequence[Mapping[str, Any]], what: str) -> Scores:
    return [[float(step[what]) for step in row["response"]["steps"]] for row in rows]


def rolled(folder: Path, made: Sequence[Solution]) -> tuple[Scores, int]:
    """The share of right endings after every step, kept beside the runs."""
    kept = folder / "rollouts.json"
    if not kept.exists():
        shares, tokens = by_rollouts(MINIATURES[TASK], made, ROLLOUTS)
        write_json(kept, {"shares": shares, "tokens": tokens})
    found = read_json(kept)
    return found["shares"], int(found["tokens"])


def rules(scores: Mapping[str, Scores], made: Sequence[Solution]) -> dict[str, list[bool]]:
    """Whether each rule names the first wrong step. A value before the first step is not known, so no fall is there."""
    found = {}
    for what, values in scores.items():
        found[f"lowest {what}"] = [lowest(own) == one.error for own, one in zip(values, made, strict=True)]
        if what == "value":
            falls = [[after - before for before, after in pairwise(own)] for own in values]
            found["steepest fall"] = [
                1 + lowest(own) == one.error for own, one in zip(falls, made, strict=True)
            ]  # fmt: skip
    return found


def lowest(scores: Sequence[float]) -> int:
    """The first of equal ones."""
    return min(range(len(scores)), key=scores.__getitem__)


def _rate(own: Sequence[bool], other: Sequence[bool]) -> dict[str, float]:
    """Hits with their Wilson interval, and gained and lost against the first row's first rule."""
    low, high = wilson(sum(own), len(own))
    gained, lost = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((own, other), (other, own)))
    return {
        "share": mean(own),
        "ci_low": low,
        "ci_high": high,
        "gained": gained,
        "lost": lost,
        "p": mcnemar(gained, lost),
    }
