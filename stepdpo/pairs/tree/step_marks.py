"""What a tree knows of the steps on the way to one of its nodes. Pure functions of trees.

Roll-outs as labels of steps are Math-Shepherd's (Wang et al. 2023, arXiv 2312.08935).
"""

from __future__ import annotations

from enum import Enum

from stepdpo.core.steps import split_steps, step_ends
from stepdpo.core.types import Mark
from stepdpo.pairs.tree.tree import Tree


class Labels(Enum):
    """How right a step is."""

    soft = "soft"
    """The share m / n of right roll-outs after it, else (Q + 1) / 2."""
    hard = "hard"
    """1 where any roll-out after it is right (m > 0), or any solution of a search that goes through it; else 0."""


def step_value(tree: Tree, number: int, labels: Labels = Labels.soft) -> float | None:
    """How right a node is, in [0, 1]; None where nobody knows.

    With n roll-outs that are right with probability q, `soft` has a standard error of sqrt(q (1 - q) / n), and `hard`
    is 1 with probability 1 - (1 - q)^n, so it is the more optimistic the more roll-outs there are.
    """
    node, q = tree.nodes[number], tree.value(number)
    if q is None:
        return None
    if labels is Labels.soft:
        share = node.successes / node.visits if node.successes is not None and node.visits else (q + 1) / 2
        return round(min(1.0, max(0.0, share)), 6)  # with self-evaluation in it Q may lie outside of [-1, 1]
    if node.successes is not None:
        return float(node.successes > 0)
    ends = tree.endings(number)
    return float(any(tree.nodes[i].correct for i in ends)) if ends else None


def marked_steps(tree: Tree, number: int, labels: Labels = Labels.soft) -> list[tuple[int, Mark]]:
    """The steps of `tree.text(number)`, each with the node it is of; none where nodes are whole responses.

    A line break at the end of a step belongs to the next one. Of what is left of a roll-out as one node, only the end
    is known.
    """
    if tree.meta.get("whole"):
        return []
    path, text = tree.path(number), tree.text(number)
    turn = max((place for place, i in enumerate(path) if tree.nodes[i].feedback), default=0)
    found, at = [], 0
    for i in path[turn:]:
        added = tree.nodes[i].text
        head, steps = split_steps(added)
        for end in step_ends(head, steps)[:-1] if not tree.measured(i) else ():
            found.append((i, Mark(at + end)))
        at += len(added)
        if added.strip():
            end = at - (added.endswith("\n") and at < len(text))
            found.append((i, Mark(end, step_value(tree, i, labels))))
    return found


def marks(tree: Tree, number: int) -> tuple[Mark, ...]:
    """The steps of `tree.text(number)` with their soft labels; none where nothing is known of any."""
    found = [mark for _, mark in marked_steps(tree, number)]
    return tuple(found) if any(mark.value is not None for mark in found) else ()
