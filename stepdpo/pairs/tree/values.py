"""The beginnings of one problem's solutions, what roll-outs from them came to, and the tree they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stepdpo.core.types import Problem
from stepdpo.pairs.solutions import Solution
from stepdpo.pairs.tree.chances import best_of
from stepdpo.pairs.tree.pair_selection import ROLLOUTS
from stepdpo.pairs.tree.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class RolloutStart:
    """Where roll-outs start: after a node, in the middle of the label of the next step."""

    node: int
    before: str
    r"""The solution up to and with the next label (`...\nStep k:`); empty at the root."""


@dataclass
class PrefixStats:
    """Grows as solutions come in; beginnings that solutions share are one node."""

    nodes: list[Node] = field(default_factory=lambda: [Node(-1)])
    places: dict[tuple[int, str], int] = field(default_factory=dict)
    """The child of a node that has a text."""
    rolled: dict[int, list[Solution]] = field(default_factory=dict)
    """Usable roll-outs from a node, as whole solutions."""

    def child(self, parent: int, text: str) -> int:
        """The node with that text below another, made if there is none."""
        if (parent, text) not in self.places:
            self.places[parent, text] = len(self.nodes)
            self.nodes.append(Node(parent, text))
        return self.places[parent, text]

    def add(self, solution: Solution, rollouts: int) -> list[int]:
        """Every beginning of a finished solution, the empty one first; its end needs no roll-outs."""
        path = [0]
        for text in step_texts(solution):
            path.append(self.child(path[-1], text))
        self.ended(path[-1], solution.correct, rollouts)
        return path

    def ended(self, node: int, correct: bool, rollouts: int) -> None:
        """A step that ends a solution: all roll-outs after it would be the solution itself."""
        if not self.known(node):
            self.nodes[node] = replace(self.nodes[node], correct=correct)
            self.record(node, rollouts, rollouts * correct, [])

    def record(self, node: int, rollouts: int, right: int, usable: Sequence[Solution]) -> None:
        """What the roll-outs from a node came to."""
        found = replace(self.nodes[node], visits=rollouts, successes=right, q=2 * right / rollouts - 1)
        self.nodes[node] = found
        self.rolled[node] = list(usable)

    def known(self, node: int) -> bool:
        """Whether it was measured."""
        return self.nodes[node].successes is not None

    def q(self, node: int, k: int = 1) -> float:
        """P(a roll-out from here is right), or that one of `k` is."""
        measured = self.nodes[node]
        assert measured.successes is not None
        return best_of(measured.visits, measured.successes, k)

    def tree(self, problem: Problem, others: Sequence[Solution] = ()) -> Tree:
        """Everything that was measured, with the roll-outs and `others` as finished solutions below it."""
        for solution in [*(s for some in self.rolled.values() for s in some), *others]:
            self._hang(solution)
        return Tree(
            problem.id, problem.question, ", ".join(problem.answers), tuple(self.nodes), meta={"visits": ROLLOUTS}
        )

    def _hang(self, solution: Solution) -> None:
        """Below the last measured step that it goes through, all that follows as one node; a last step is measured."""
        at, texts = 0, step_texts(solution)
        while texts and (below := self.places.get((at, texts[0]))) is not None and self.known(below):
            at = below
            texts = texts[1:]
        if len(texts) == 1:
            self.ended(self.child(at, texts[0]), solution.correct, self.nodes[at].visits)
        elif texts:
            leaf = self.child(at, "".join(texts))
            self.nodes[leaf] = replace(self.nodes[leaf], visits=self.nodes[leaf].visits + 1, correct=solution.correct)


def step_texts(solution: Solution) -> list[str]:
    """The steps with their line breaks in front, the head before the first: together the whole text."""
    texts = [solution.head + solution.steps[0], *solution.steps[1:]]
    for i in range(len(texts) - 1):
        if texts[i].endswith("\n"):
            texts[i], texts[i + 1] = texts[i][:-1], "\n" + texts[i + 1]
    return texts


def rollout_starts(solution: Solution, path: Sequence[int]) -> list[RolloutStart]:
    """Where roll-outs from every beginning but the whole solution start."""
    return [RolloutStart(node, solution.prefix(i) if i else "") for i, node in enumerate(path[:-1])]
