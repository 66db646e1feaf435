"""Value estimates of prefixes by roll-outs (Setlur et al. 2024, arXiv 2406.14532), and the tree that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import comb

from stepdpo.core.types import Problem
from stepdpo.pairs.solutions import Solution
from stepdpo.pairs.tree.tree import ROLLOUTS, Node, Tree


def best_of(rollouts: int, right: int, k: int = 1) -> float:
    """P(one of `k` further roll-outs is right), from `right` ones among `rollouts`; unbiased for k <= rollouts.

    1 - C(n - m, k) / C(n, k): the share of subsets of k roll-outs that hold a right one. k = 1 gives m / n.
    """
    if not 0 <= right <= rollouts or not 1 <= k <= rollouts:
        raise ValueError(f"best of {k}, {right} right of {rollouts}: k lies in [1, rollouts], right in [0, rollouts]")
    return 1 - comb(rollouts - right, k) / comb(rollouts, k)


def advantages(q: Sequence[float]) -> list[float]:
    """A_i = Q_i - Q_(i-1) of the steps i = 1, 2, ... from the values of all prefixes, the empty one first."""
    return [after - before for before, after in pairwise(q)]


def lowest(q: Sequence[float]) -> int:
    """The first step (from 1) after which Q is lowest."""
    return min(range(1, len(q)), key=lambda i: (q[i], i))


@dataclass(frozen=True, slots=True)
class RolloutStart:
    """A prefix to roll out from: a node, and the text that the model goes on from."""

    node: int
    prefix: str
    r"""The solution up to and with the next label (`...\nStep k:`); empty at the root."""


@dataclass
class PrefixStats:
    """Roll-outs of one problem in a trie of steps: a prefix that solutions share is one node, measured once."""

    nodes: list[Node] = field(default_factory=lambda: [Node(-1)])
    children: dict[tuple[int, str], int] = field(default_factory=dict)
    """The child of a node that has a text."""
    solutions: dict[int, list[Solution]] = field(default_factory=dict)
    """What the usable roll-outs from a node came to, as whole solutions."""

    def child(self, parent: int, text: str) -> int:
        """The node with that text below another, made if there is none."""
        if (parent, text) not in self.children:
            self.children[parent, text] = len(self.nodes)
            self.nodes.append(Node(parent, text))
        return self.children[parent, text]

    def add(self, solution: Solution, rollouts: int) -> list[int]:
        """The nodes of all prefixes of a finished solution, the empty one first; its end needs no roll-outs."""
        path = [0]
        for text in step_texts(solution):
            path.append(self.child(path[-1], text))
        self.end(path[-1], solution.correct, rollouts)
        return path

    def end(self, node: int, correct: bool, rollouts: int) -> None:
        """A step that ends a solution: all roll-outs after it would be the solution itself."""
        if not self.measured(node):
            self.nodes[node] = replace(self.nodes[node], correct=correct)
            self.record(node, rollouts, rollouts * correct, [])

    def record(self, node: int, rollouts: int, right: int, usable: Sequence[Solution]) -> None:
        """The outcome of the roll-outs from a node. Those that cannot be used have no answer, and count as failures."""
        self.nodes[node] = replace(self.nodes[node], visits=rollouts, successes=right, q=2 * right / rollouts - 1)
        self.solutions[node] = list(usable)

    def measured(self, node: int) -> bool:
        """Whether roll-outs were made from it."""
        return self.nodes[node].successes is not None

    def q(self, node: int, k: int = 1) -> float:
        """P(a roll-out from here is right), or that one of `k` is."""
        measured = self.nodes[node]
        assert measured.successes is not None
        return best_of(measured.visits, measured.successes, k)

    def tree(self, problem: Problem, others: Sequence[Solution] = ()) -> Tree:
        """Everything that was measured, with the roll-outs and `others` as finished solutions below it."""
        for solution in [*(s for some in self.solutions.values() for s in some), *others]:
            self._attach(solution)
        return Tree(
            problem.id, problem.question, ", ".join(problem.answers), tuple(self.nodes), meta={"visits": ROLLOUTS}
        )

    def _attach(self, solution: Solution) -> None:
        """Below the last measured step that it goes through, all that follows as one node; a last step is measured."""
        at, texts = 0, step_texts(solution)
        while texts and (child := self.children.get((at, texts[0]))) is not None and self.measured(child):
            at = child
            texts = texts[1:]
        if len(texts) == 1:
            self.end(self.child(at, texts[0]), solution.correct, self.nodes[at].visits)
        elif texts:
            leaf = self.child(at, "".join(texts))
            self.nodes[leaf] = replace(self.nodes[leaf], visits=self.nodes[leaf].visits + 1, correct=solution.correct)


def step_texts(solution: Solution) -> list[str]:
    """The steps with their line breaks in front, the head before the first: together the whole text."""
    texts = [solution.head + solution.steps[0], *solution.steps[1:]]
    # The break moves to the next step, as a step that ends its solution has none: else equal steps were two nodes.
    for i in range(len(texts) - 1):
        if texts[i].endswith("\n"):
            texts[i], texts[i + 1] = texts[i][:-1], "\n" + texts[i + 1]
    return texts


def rollout_starts(solution: Solution, path: Sequence[int]) -> list[RolloutStart]:
    """Where roll-outs from every prefix but the whole solution start."""
    return [RolloutStart(node, solution.prefix(i) if i else "") for i, node in enumerate(path[:-1])]
