"""A tree of steps: what a model wrote after what, and what came of it. Pure functions of records.

Searches, roll-outs and published trees all become this, so that pairs are selected from them in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from stepdpo.core.types import Turn

ROLLOUTS = "rollouts"
"""`meta["visits"]` of a tree whose visits count roll-outs made after a step rather than a search's choices."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step after the steps of its ancestors."""

    parent: int
    """Index of the node it goes on from; the root, node 0, has -1."""
    text: str = ""
    """What it adds. The texts from the root on, joined as they are, are the beginning of a solution."""
    visits: int = 0
    """N: how often a search went through it, or how many roll-outs were made after it."""
    q: float | None = None
    """Q in [-1, 1], the expected outcome once this step is taken; None where nothing is known."""
    prior: float | None = None
    """How likely the policy finds it among its siblings, where a search asked."""
    correct: bool | None = None
    """Of the last step of a solution: whether the answer is right. None where the solution goes on."""
    successes: int | None = None
    """m: how many of the roll-outs after it were right."""
    feedback: str = ""
    """What the user answers to the node above: a new turn of the conversation begins here."""


@dataclass(frozen=True)
class Tree:
    """Everything that was tried on one problem."""

    problem: str
    """Its id."""
    question: str
    answer: str
    nodes: tuple[Node, ...]
    """The root first, every node after its parent."""
    history: tuple[Turn, ...] = ()
    """Turns between the question and the response."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`visits`: what they count, where it is not how often a search went through (`rollouts`); `whole`: whether a
    node is a whole response; `pair`: what every pair's meta takes over."""
    place: str = field(default="", compare=False)
    """Where it was read, as `file:line`."""

    def __post_init__(self) -> None:
        """ValueError unless the nodes are a tree, the root first."""
        for number, node in enumerate(self.nodes):
            if (node.parent != -1) if number == 0 else not 0 <= node.parent < number:
                raise ValueError(f"node {number} has parent {node.parent}: expected one before it (-1 for node 0)")

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the children of every node."""
        below: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes[1:], start=1):
            below[node.parent].append(number)
        return tuple(map(tuple, below))

    @cached_property
    def visited(self) -> bool:
        """Whether visits were counted."""
        return any(node.visits for node in self.nodes)

    def value(self, number: int) -> float | None:
        """Q of a node in [-1, 1]: as given, else by its roll-outs, else by its ending; None where nothing is known."""
        node = self.nodes[number]
        if node.q is not None:
            return node.q
        if node.successes is not None and node.visits:
            return 2 * node.successes / node.visits - 1
        return None if node.correct is None else 2.0 * node.correct - 1

    def measured(self, number: int) -> bool:
        """Whether what is known of a node is known of its first step: of all that is left of a roll-out it is not."""
        return self.meta.get("visits") != ROLLOUTS or self.nodes[number].successes is not None

    def path(self, number: int) -> list[int]:
        """Indices from the root to a node."""
        path = [number]
        while self.nodes[path[-1]].parent >= 0:
            path.append(self.nodes[path[-1]].parent)
        return path[::-1]

    def text(self, number: int) -> str:
        """The response up to the end of a node, from the last turn of the user on."""
        return self._said(number)[1]

    def turns(self, number: int) -> tuple[Turn, ...]:
        """What was said between the question and the response that a node is a part of."""
        return self._said(number)[0]

    def _said(self, number: int) -> tuple[tuple[Turn, ...], str]:
        turns, text = self.history, ""
        for node in (self.nodes[i] for i in self.path(number)):
            if node.feedback:
                turns, text = (*turns, Turn("assistant", text), Turn("user", node.feedback)), ""
            text += node.text
        return turns, text

    def siblings(self, parent: int) -> list[tuple[int, ...]]:
        """The children of a node, those after the same feedback together."""
        groups: dict[str, list[int]] = {}
        for child in self.children[parent]:
            groups.setdefault(self.nodes[child].feedback, []).append(child)
        return [tuple(group) for group in groups.values()]

    def subtree(self, number: int) -> list[int]:
        """A node and all that goes on from it within its turn, depth first."""
        found, left = [], [number]
        while left:
            found.append(left.pop())
            left.extend(i for i in reversed(self.children[found[-1]]) if not self.nodes[i].feedback)
        return found

    def endings(self, number: int) -> list[int]:
        """Finished solutions at or below a node."""
        return [i for i in self.subtree(number) if self.nodes[i].correct is not None]

    def to_row(self) -> dict[str, Any]:
        """The JSON object of trees.jsonl; values that say nothing are left out."""
        nodes = [{k.name: v for k in fields(Node) if (v := getattr(n, k.name)) != k.default} for n in self.nodes]
        row: dict[str, Any] = {
            "problem": self.problem,
            "question": self.question,
            "answer": self.answer,
            "nodes": nodes,
        }
        if self.history:
            row["history"] = [{"role": turn.role, "content": turn.content} for turn in self.history]
        return {**row, **({"meta": dict(self.meta)} if self.meta else {})}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Tree:
        """The inverse of `to_row`. ValueError, KeyError or TypeError for anything else."""
        history = tuple(Turn(turn["role"], turn["content"]) for turn in row.get("history", []))
        nodes = tuple(Node(**node) for node in row["nodes"])
        return cls(row["problem"], row["question"], row["answer"], nodes, history, row.get("meta", {}))


def chain(texts: Sequence[str], parent: int, first: int) -> list[Node]:
    """Nodes that follow one another, the first of them node number `first`, below `parent`."""
    return [Node(parent if i == 0 else first + i - 1, text) for i, text in enumerate(texts)]
