"""PUCT tree search over steps, after MCTS-DPO (Xie et al. 2024, arXiv 2405.00451). No model: what is written after a
step is handed in, so that a search can be followed by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import exp, sqrt
from typing import Any

from stepdpo.core.types import Problem
from stepdpo.pairs.tree.tree import Node, Tree


class Prior(Enum):
    """How a step's log-probability becomes its prior."""

    code = "code"
    """exp(logp / L^power), as the authors' code has it: near 1 for any step the model is at ease with."""
    paper = "paper"
    """exp(logp) / L^power."""


def prior_of(logp: float, tokens: int, power: float, kind: Prior = Prior.code) -> float:
    """How likely the policy finds a step of so many tokens, made comparable over lengths."""
    length = float(max(1, tokens)) ** power
    return exp(logp / length) if kind is Prior.code else exp(logp) / length


def puct(q: float, visits: int, prior: float, parent_visits: int, weight: float) -> float:
    """Q + w p sqrt(N_parent) / (1 + N): what is known to be good, and what is likely and was seldom tried."""
    return q + weight * prior * sqrt(parent_visits) / (1 + visits)


@dataclass(slots=True)
class SearchNode:
    """A node while it is searched: the state after a step."""

    parent: int
    text: str = ""
    """What it adds to its parent."""
    depth: int = 0
    prior: float = 1.0
    value: float = 0.0
    """v: the model's opinion of the beginning, plus the outcome where it has ended."""
    reward: float = 0.0
    """r = v - v of the parent."""
    q: float = 0.0
    """Q = r + gamma V."""
    below: float = 0.0
    """V: mean of the children's Q, each weighed by max(1, N)."""
    visits: int = 0
    """N: walks that came through or ended here."""
    children: list[int] = field(default_factory=list)
    ended: bool = False
    """Whether nothing can follow: an answer, the depth limit, or nothing usable was written after it."""
    correct: bool | None = None
    """Of an answer: whether it is right."""
    judged: bool = False
    """Whether `value` says something about it: the model was asked, or it holds an answer."""


@dataclass(slots=True)
class PuctSearch:
    """A growing tree. Every walk goes down by PUCT to a spot that has ended and is backed up once, to the root.

    So visits add up: N of a spot is the number of walks that ended there, plus N of its children; and only spots that
    have ended end walks. N of the root is the number of walks.
    """

    weight: float = 1.0
    gamma: float = 1.0
    nodes: list[SearchNode] = field(default_factory=lambda: [SearchNode(-1)])

    def descend(self, at: int = 0) -> int:
        """Down by PUCT to a spot without children."""
        while self.nodes[at].children:
            at = self.select(at)
        return at

    def select(self, at: int) -> int:
        """The child with the largest PUCT; among equals the likelier, then the earlier one."""
        visits = self.nodes[at].visits

        def rank(number: int) -> tuple[float, float, int]:
            child = self.nodes[number]
            return puct(child.q, child.visits, child.prior, visits, self.weight), child.prior, -number

        return max(self.nodes[at].children, key=rank)

    def add(self, parent: int, text: str, prior: float = 1.0, opinion: float | None = None) -> int:
        """A new spot; without an opinion of it, it is as good as its parent."""
        above = self.nodes[parent]
        node = SearchNode(parent, text, above.depth + 1, prior, judged=opinion is not None)
        self.nodes.append(node)
        above.children.append(len(self.nodes) - 1)
        self._value(node, above.value if opinion is None else opinion)
        return len(self.nodes) - 1

    def end(self, at: int, outcome: float, correct: bool | None = None) -> None:
        """Nothing follows; `outcome` is -1, or how good a right answer is."""
        node = self.nodes[at]
        node.ended, node.correct = True, correct
        node.judged |= correct is not None
        self._value(node, node.value + outcome)

    def back_up(self, at: int) -> None:
        """One walk ended here: values from the leaf to the root, one visit each."""
        while at >= 0:
            node = self.nodes[at]
            weights = [max(1, self.nodes[i].visits) for i in node.children]
            if weights:
                total = sum(w * self.nodes[i].q for w, i in zip(weights, node.children, strict=True))
                node.below = total / sum(weights)
            node.q = node.reward + self.gamma * node.below
            node.visits += 1
            at = node.parent

    def best(self, at: int) -> int | None:
        """The child to go on from for good: the most visited, then by Q, then the earlier one."""
        children = self.nodes[at].children
        return max(children, key=lambda i: (self.nodes[i].visits, self.nodes[i].q, -i)) if children else None

    def text(self, at: int) -> str:
        """The solution up to the end of a spot."""
        parts = []
        while at >= 0:
            parts.append(self.nodes[at].text)
            at = self.nodes[at].parent
        return "".join(reversed(parts))

    def _value(self, node: SearchNode, value: float) -> None:
        node.value = value
        node.reward = value - (self.nodes[node.parent].value if node.parent >= 0 else 0.0)
        node.q = node.reward

    def tree(self, problem: Problem, **meta: Any) -> Tree:
        """What was searched. Q is left out where nothing is known: never visited and never judged, or cut short."""
        nodes = tuple(
            Node(
                parent=node.parent,
                text=node.text,
                visits=node.visits,
                q=node.q if _known(node) else None,
                prior=round(node.prior, 6) if node.parent >= 0 else None,
                correct=node.correct,
            )
            for node in self.nodes
        )
        return Tree(problem.id, problem.question, ", ".join(problem.answers), nodes, meta=meta)


def _known(node: SearchNode) -> bool:
    return node.correct is not None if node.ended else node.judged or node.visits > 0
