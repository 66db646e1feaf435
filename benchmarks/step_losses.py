"""What losses on steps cost beside DPO: a list of leaves in one tree against its pairs. `make bench-step-losses`.

A model of 8 layers and width 512 with random weights; trees of 8 leaves, every step of so many tokens and gone on with
in two ways. Forward and backward passes on one device, interleaved, medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch

from benchmarks.shapes import BENCH_32K, build
from stepdpo.algo.dpo import DPO
from stepdpo.algo.stepweighted import StepWeighted
from stepdpo.algo.tpo import TPO
from stepdpo.models.attention.registry import register
from stepdpo.models.loss_inputs import pair_scores, step_scores
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.step_spans import Steps
from stepdpo.tokens.token_tree import TokenSequence, build_tree

PROMPT, DEPTH, WAYS = 100, 3, 2
"""Tokens of a question; steps of a leaf, and how many ways each step is gone on with."""


def leaves(step: int, seed: int) -> list[TokenSequence]:
    """Those of one tree, the first half right."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(1, 30_000, PROMPT)
    steps = {
        path: rng.integers(1, 30_000, step)
        for depth in range(1, DEPTH + 1)
        for path in itertools.product(range(WAYS), repeat=depth)
    }
    found = []
    for number, path in enumerate(itertools.product(range(WAYS), repeat=DEPTH)):
        tokens = np.concatenate([prompt, *(steps[path[: depth + 1]] for depth in range(DEPTH))]).astype(np.int32)
        stops = PROMPT + step * np.arange(1, DEPTH + 1, dtype=np.int32)
        known = Steps(
            stops.astype(np.int32), np.full(DEPTH, np.nan, np.float32), np.ones(DEPTH * step, np.float32),
            float(number < WAYS**DEPTH // 2),
        )  # fmt: skip
        found.append(TokenSequence(tokens, PROMPT, number, known))
    return found


def as_list(tree: Sequence[TokenSequence]) -> TreeBatch:
    return collate([build_tree(list(tree), [0], [1.0])])


def as_pairs(tree: Sequence[TokenSequence], steps: bool) -> TreeBatch:
    """Each right leaf against each wrong one, every pair a tree of its own."""
    half = len(tree) // 2
    trees = []
    for number, (one, other) in enumerate(itertools.product(tree[:half], tree[half:])):
        sides = [replace(side, owner=owner) for owner, side in enumerate((one, other))]
        trees.append(build_tree(sides if steps else [replace(s, steps=None) for s in sides], [number], [1.0]))
    return collate(trees)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", type=int, nargs="+", default=[20, 60], help="tokens of a step")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = build(BENCH_32K, register(), device=options.device)
    scorer = Scorer(model, False, lambda _: nullcontext())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}; {WAYS**DEPTH} leaves")
    print("| tokens a step | way | tokens computed | ms | to `dpo` on pairs |")
    print("|---|---|---|---|---|")
    for step in options.step:
        tree = leaves(step, seed=step)
        ways: dict[str, tuple[TreeBatch, Callable[[TreeBatch], torch.Tensor]]] = {
            "`dpo` on its 16 pairs": (as_pairs(tree, False), lambda batch: pairwise(scorer, batch)),
            "`stepweighted` on its 16 pairs": (
                as_pairs(tree, True),
                lambda batch: on_steps(scorer, StepWeighted(), batch),
            ),
            "`tpo` on the tree": (as_list(tree), lambda batch: on_steps(scorer, TPO(), batch)),
        }
        ready = {name: (known(batch.to(options.device)), run) for name, (batch, run) in ways.items()}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, (batch, run) in ready.items():
                began = time.perf_counter()
                model.zero_grad(set_to_none=True)
                run(batch).backward()  # type: ignore[no-untyped-call]
                if options.device == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    spent[name].append(time.perf_counter() - began)
        first = spent["`dpo` on its 16 pairs"]
        for name, (batch, _) in ready.items():
            ratio = statistics.median(a / b for a, b in zip(spent[name], first, strict=True))
            size = batch.input_ids_RL.numel()
            print(
                f"| {step} | {name} | {size:,} | {1000 * statistics.median(spent[name]):,.0f} | {ratio:.3f} |",
                flush=True,
            )


def known(batch: TreeBatch) -> TreeBatch:
    """With a reference that finds everything certain: its values do not matter here."""
    return replace(
        batch,
        reference_logps_R=torch.zeros(sum(batch.responses)),
        reference_logps_T=torch.zeros(len(batch.target_T)) if batch.steps is not None else None,
    )


def pairwise(scorer: Scorer, batch: TreeBatch) -> torch.Tensor:
    return DPO()(pair_scores(batch, scorer(batch))).losses_B.mean()


def on_steps(scorer: Scorer, algo: StepWeighted | TPO, batch: TreeBatch) -> torch.Tensor:
    return algo(step_scores(batch, scorer(batch))).losses_B.mean()


if __name__ == "__main__":
    main()
