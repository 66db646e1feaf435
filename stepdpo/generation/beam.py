"""Beam search over steps with a scorer: trees that are searched side by side, each with beams of its own.

AlphaMath's step-level beam search (arXiv 2405.03553) is one tree of B1 beams; diverse verifier tree search (Beeching
et al. 2024) is many trees of one beam each.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from stepdpo.generation.branch import Branch, StepSettings, chosen, grow, scored, within_length
from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.requests import Request


@dataclass(slots=True)
class _Tree:
    """One of the trees that are searched."""

    budget: int
    """Beams that are kept: one fewer with every response that is finished."""
    live: list[Branch] = field(default_factory=lambda: [Branch()])
    finished: list[Branch] = field(default_factory=list)


def beam_search(context: DecodeContext, trees: int, beams: int, expand: int, settings: StepSettings) -> Decoding:
    """The best finished response of all trees, and the others."""
    forest = [_Tree(beams) for _ in range(trees)]
    for depth in range(settings.max_steps):
        if not any(tree.live for tree in forest):
            break
        # From the question, as many steps as all beams together get later: they are to begin differently.
        yield from _step(context, forest, expand if depth else beams * expand, settings)
    return chosen(context, [branch for tree in forest for branch in tree.finished])


def _step(context: DecodeContext, forest: list[_Tree], n: int, settings: StepSettings) -> Generator[Request, Any, None]:
    """One more step of every tree, by one request to write and one to score."""
    owners = [tree for tree in forest for _ in tree.live]
    grown = yield from grow(context, [branch for tree in forest for branch in tree.live], n, settings)
    candidates = yield from scored(context, [branch for some in grown for branch in some], settings.delimiter)
    of_tree: dict[int, list[Branch]] = {id(tree): [] for tree in forest}
    for owner, some in zip(owners, grown, strict=True):
        of_tree[id(owner)] += candidates[: len(some)]
        candidates = candidates[len(some) :]
    for tree in forest:
        # A stable sort: of equal scores the earlier one is kept, whatever scores and however it is run.
        kept = sorted(of_tree[id(tree)], key=lambda branch: -branch.score)[: tree.budget]
        ranked = [within_length(context, branch, settings) for branch in kept]
        tree.live = [branch for branch in ranked if not branch.finish]
        ended = [branch for branch in ranked if branch.finish]
        tree.finished += ended
        tree.budget -= len(ended)
