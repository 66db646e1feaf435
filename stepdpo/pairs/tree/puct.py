"""PUCT tree search over steps, after MCTS-DPO (Xie et al. 2024, arXiv 2405.00451). No model: the steps that follow a
node are passed in, so that a search can be followed by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.types import Problem
from stepdpo.generation.puct import puct
from stepdpo.pairs.tree.tree import Node, Tree


@dataclass(slots=True)
class SearchNode:
    """A node during the search: the state after a step."""

    parent: int
    text: str = ""
    """What it adds to its parent."""
    depth: int = 0
    prior: float = 1.0
    value: float = 0.0
    """v: the model's self-evaluation of the text so far, plus the outcome where it has ended."""
    reward: float = 0.0
    """r = v - v of the parent."""
    q: float = 0.0
    """Q = r + gamma V."""
    children_value: float = 0.0
    """V: mean of the children's Q, each weighed by max(1, N)."""
    visits: int = 0
    """N: walks that came through or ended here."""
    children: list[int] = field(default_factory=list)
    ended: bool = False
    """Whether it is terminal: an answer, the depth limit, or nothing usable was written after it."""
    correct: bool | None = None
    """Of an answer: whether it is right."""
    evaluated: bool = False
    """Whether `value` says something about it: the model was asked, or it holds an answer."""


@dataclass(slots=True)
class PuctSearch:
    """A growing tree. Every walk goes down by PUCT to a terminal node and is backed up once, to the root.

    So visits add up: N of a node is the number of walks that ended there, plus N of its children; and only terminal
    nodes end walks. N of the root is the number of walks.
    """

    weight: float = 1.0
    gamma: float = 1.0
    nodes: list[SearchNode] = field(default_factory=lambda: [SearchNode(-1)])

    def descend(self, at: int = 0) -> int:
        """Down by PUCT to a node without children."""
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

    def add(self, parent: int, text: str, prior: float = 1.0, evaluation: float | None = None) -> int:
        """A new node; where nobody evaluated it, it is as good as its parent."""
        above = self.nodes[parent]
        node = SearchNode(parent, text, above.depth + 1, prior, evaluated=evaluation is not None)
        self.nodes.append(node)
        above.children.append(len(self.nodes) - 1)
        self._set_value(node, above.value if evaluation is None else evaluation)
        return len(self.nodes) - 1

    def end(self, at: int, outcome: float, correct: bool | None = None) -> None:
        """Nothing follows; `outcome` is -1, or how good a right answer is."""
        node = self.nodes[at]
        node.ended, node.correct = True, correct
        node.evaluated |= correct is not None
        self._set_value(node, node.value + outcome)

    def back_up(self, at: int) -> None:
        """One walk ended here: values from the leaf to the root, one visit each."""
        # From the leaf up, since V of a node is made from the new Q of its children. It is computed anew rather than
        # averaged over walks: children that no walk went through yet have a Q too (v less v of the parent), and count
        # as one visit.
        while at >= 0:
            node = self.nodes[at]
            weights = [max(1, self.nodes[i].visits) for i in node.children]
            if weights:
                total = sum(w * self.nodes[i].q for w, i in zip(weights, node.children, strict=True))
                node.children_value = total / sum(weights)
            node.q = node.reward + self.gamma * node.children_value
            node.visits += 1
            at = node.parent

    def best(self, at: int) -> int | None:
        """The child to go on from for good: the most visited, then by Q, then the earlier one."""
        children = self.nodes[at].children
        return max(children, key=lambda i: (self.nodes[i].visits, self.nodes[i].q, -i)) if children else None

    def text(self, at: int) -> str:
        """The solution up to the end of a node's step."""
        parts = []
        while at >= 0:
            parts.append(self.nodes[at].text)
            at = self.nodes[at].parent
        return "".join(reversed(parts))

    def _set_value(self, node: SearchNode, value: float) -> None:
        node.value = value
        node.reward = value - (self.nodes[node.parent].value if node.parent >= 0 else 0.0)
        node.q = node.reward

    def tree(self, problem: Problem, **meta: Any) -> Tree:
        """What was searched. Q is left out where nothing is known: neither visited nor evaluated, or cut short."""
        nodes = tuple(
            Node(
                parent=node.parent,
                text=node.text,
                visits=node.visits,
                q=node.q if _known(node) else None,
                # A model's own last digits change with the problems that share its batch; no choice hangs on them.
                prior=float(f"{node.prior:.4g}") if node.parent >= 0 else None,
                correct=node.correct,
            )
            for node in self.nodes
        )
        return Tree(problem.id, problem.question, ", ".join(problem.answers), nodes, meta=meta)


def _known(node: SearchNode) -> bool:
    # A node that was cut short has the -1 of a wrong answer to steer walks away; as a side of a pair it proves nothing.
    return node.correct is not None if node.ended else node.evaluated or node.visits > 0
