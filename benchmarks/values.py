"""How well trained value heads tell right beginnings of solutions from wrong ones, on tinymath. `make bench-values`.

Trees are searched, heads are trained on them, and both are held against the exact checker on solutions that the base
samples for problems nobody has seen: a beginning is right as long as no step of it is wrong. Beside them the value by
roll-outs: n continuations from every beginning, the share that ends right, at the tokens they cost.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, Pair, Problem, Sampling
from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.first_error import ScoredSolution, best_threshold, figures
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.generation.score_text import score_texts, scored_texts
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.attention.registry import register
from stepdpo.models.load import Pretrained
from stepdpo.models.step_values import step_values
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import Stories, problems


@dataclass(frozen=True)
class Miniature:
    """A task and its base."""

    name: str
    """Of the task and of the model."""
    path: str
    stories: Stories
    tokens: int
    """At most, of a solution."""


MINIATURES = {
    "tinymath": Miniature("tinymath", "pkg://tinymath/model", Stories.short, 400),
    "tinymath_long": Miniature("tinymath_long", "pkg://tinymath/long_model", Stories.long, 200),
}
SOLUTIONS = 4
"""Sampled of every held-out problem, at temperature 1."""
ROLLOUTS = (2, 8)
HEADS = {
    "value": ("algo=value", "algo.weight=1", "dataset=trees", "level=instance"),
    "value, head alone": (
        "algo=value",
        "algo.weight=1",
        "algo.sft=0",
        "algo.trunk=frozen",
        "dataset=trees",
        "level=instance",
    ),
    "prm": ("algo=prm", "dataset=trees", "level=instance"),
    "prm, hard labels": ("algo=prm", "dataset=trees", "dataset.labels=hard", "level=instance"),
    "prm, pqm": ("algo=prm", "algo.form=pqm", "dataset=trees", "dataset.labels=hard", "level=instance"),
    "svpo": ("algo=svpo", "dataset=jsonl"),
}


@dataclass(frozen=True)
class Solution:
    """A sampled solution and, from 0, its first wrong step; -1 where every step is right."""

    problem: Problem
    head: str
    steps: tuple[str, ...]
    error: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="tinymath", choices=list(MINIATURES))
    parser.add_argument("--trees", type=Path, help="a finished run of `stepdpo pairs`; made where it is left out")
    parser.add_argument("--problems", type=int, default=200, help="to search")
    parser.add_argument("--heldout", type=int, default=200, help="to measure on")
    parser.add_argument("--method", default="mcts", choices=["mcts", "rollouts"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--heads", nargs="*", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--out", type=Path, default=Path("runs-values"))
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--no-rollouts", dest="rollouts", action="store_false")
    options = parser.parse_args()
    mini = MINIATURES[options.task]
    trees = options.trees or options.out / options.method
    if not (trees / "finished.jsonl").exists():
        stepdpo(
            "pairs",
            f"pairs={options.method}",
            f"task={mini.name}",
            f"model={mini.name}",
            f"max_tokens={mini.tokens}",
            f"limit={options.problems}",
            f"runs={trees.parent}",
            f"run={trees.name}",
        )
    made = sampled(mini, options.heldout)
    truth = [solution.error for solution in made]
    print(f"{len(made)} solutions of {options.heldout} problems, {sum(e < 0 for e in truth)} without a wrong step")
    print("| values by | AUC | F1 | first error named | right ones passed | tokens a solution |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, words in ((name, HEADS[name]) for name in options.heads):
        run = options.out / name.replace(", ", "-").replace(" ", "_")
        if not (run / "model").exists():
            place = trees / "preferences.jsonl" if "dataset=jsonl" in words else trees
            given = (
                f"dataset.path={place}",
                f"model={mini.name}",
                f"epochs={options.epochs}",
                "batch.pairs=16",
                f"optim.lr={options.lr}",
            )
            stepdpo("train", *words, *given, "eval_every=0", "save_every=0", f"runs={run.parent}", f"run={run.name}")
        show(name, by_head(made, run / "model"), made, 0)
    show("the base's own log-probabilities", by_logps(mini, made), made, 0)
    for count in ROLLOUTS if options.rollouts else ():
        values, tokens = by_rollouts(mini, made, count)
        show(f"{count} roll-outs a step", values, made, tokens / len(made))


def stepdpo(*words: str) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "stepdpo", *words], check=True, stdout=subprocess.DEVNULL)
    print(f"# {' '.join(words)}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def sampled(mini: Miniature, count: int, split: str = "test") -> list[Solution]:
    spec, check = Pretrained(path=mini.path), TinymathChecker().first_error
    known = list(problems(split, count, kind=mini.stories))
    template, _ = resolve(NativeTemplate(), spec.source, spec.tokenizer())
    with TransformersSampler(progress=False).open(spec) as sampler:
        prompts = [template.render(p.question, (), spec.tokenizer()).text for p in known]
        drawn = sampler.sample(prompts, Sampling(SOLUTIONS, 1.0, 1.0, mini.tokens, (), 0))
    found = []
    for problem, responses in zip(known, drawn, strict=True):
        for response in responses:
            head, steps = split_steps(response.text)
            if steps:
                error = check(problem, steps)
                found.append(Solution(problem, head, tuple(steps), -1 if error is None else error))
    return found


def by_head(made: Sequence[Solution], folder: Path) -> list[list[float]]:
    """The value of every step of every solution."""
    spec = Pretrained(path=str(folder))
    tokenizer, model = spec.tokenizer(), spec.model(register(), torch.float32)
    template, _ = resolve(NativeTemplate(), folder, tokenizer)
    pairs = [Pair(one.problem.question, "", one.head + "".join(one.steps), "") for one in made]
    values, dropped = step_values(pairs, model, folder, template, tokenizer, torch.device("cpu"))
    assert not dropped, dropped
    return [values[number] for number in range(len(made))]


def by_rollouts(mini: Miniature, made: Sequence[Solution], count: int) -> tuple[list[list[float]], int]:
    """The share of right endings of so many continuations from every step, and the tokens drawn for them.

    Equal beginnings are continued once.
    """
    spec, grade = Pretrained(path=mini.path), Strict().grade
    tokenizer = spec.tokenizer()
    template, _ = resolve(NativeTemplate(), spec.source, tokenizer)
    begun: dict[tuple[str, str], Problem] = {}
    for one in made:
        prompt = template.render(one.problem.question, (), tokenizer).text
        begun.update({(prompt, text): one.problem for text in beginnings(one)})
    with TransformersSampler(progress=False).open(spec) as sampler:
        prompts = [prompt + text for prompt, text in begun]
        drawn = sampler.sample(prompts, Sampling(count, 1.0, 1.0, mini.tokens, (), 1))
    tokens = sum(response.tokens for responses in drawn for response in responses)
    shares = {
        key: sum(grade(key[1] + response.text, problem).verdict == CORRECT for response in responses) / count
        for (key, problem), responses in zip(begun.items(), drawn, strict=True)
    }
    values = []
    for one in made:
        prompt = template.render(one.problem.question, (), tokenizer).text
        values.append([shares[prompt, text] for text in beginnings(one)])
    return values, tokens


def by_logps(mini: Miniature, made: Sequence[Solution]) -> list[list[float]]:
    """What the base itself thinks of it: nats of the step that it finds least likely, of those up to here."""
    spec = Pretrained(path=mini.path)
    tokenizer, model = spec.tokenizer(), spec.model("sdpa", torch.float32)
    template, _ = resolve(NativeTemplate(), spec.source, tokenizer)
    before: list[str] = []
    steps: list[str] = []
    for one in made:
        prompt = template.render(one.problem.question, (), tokenizer).text
        before += [prompt + text for text in (one.head, *beginnings(one)[:-1])]
        steps += one.steps
    logps = iter(score_texts(model, scored_texts(before, steps, tokenizer), 8192))
    return [list(accumulate((next(logps) for _ in one.steps), min)) for one in made]


def beginnings(one: Solution) -> list[str]:
    """The solution up to the end of each step."""
    return [one.head + "".join(one.steps[: number + 1]) for number in range(len(one.steps))]


def show(name: str, values: Sequence[Sequence[float]], made: Sequence[Solution], tokens: float) -> None:
    """One row: the threshold is chosen on the problems of even number, and everything measured on the others."""
    known = {problem: place for place, problem in enumerate(dict.fromkeys(one.problem.id for one in made))}
    scored = [ScoredSolution(tuple(value), one.error) for value, one in zip(values, made, strict=True)]
    tuned, rest = (
        [one for one, solution in zip(scored, made, strict=True) if known[solution.problem.id] % 2 == odd]
        for odd in (0, 1)
    )
    found = figures(rest, best_threshold(tuned))
    shares = " | ".join(f"{100 * found[key]:.1f}" for key in ("f1", "named", "passed"))
    print(f"| {name} | {found['auc']:.3f} | {shares} | {tokens:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
