"""A tree search that trusts values and asks for no answer, after AlphaMath (arXiv 2405.03553). No model: what follows a
node is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepdpo.generation.branch import Branch
from stepdpo.generation.puct import puct


@dataclass(slots=True)
class ValueNode:
    """The state after a step."""

    parent: int
    branch: Branch
    prior: float = 1.0
    value: float = 0.0
    """What the scorer says of it, in [-1, 1]."""
    visits: int = 0
    """N: values that were backed up through it."""
    total: float = 0.0
    """W: their sum."""
    children: list[int] = field(default_factory=list)
    closed: bool = False
    """Whether nothing is left to be written from it on."""

    @property
    def q(self) -> float:
        """Mean of the values backed up; its own before the first."""
        return self.total / self.visits if self.visits else self.value


@dataclass(slots=True)
class ValueSearch:
    """A growing tree. Node 0 is the question."""

    weight: float
    nodes: list[ValueNode] = field(default_factory=lambda: [ValueNode(-1, Branch())])

    def select(self) -> int:
        """Down by PUCT, past what is closed, to a node without children."""
        at = 0
        while self.nodes[at].children:
            visits = self.nodes[at].visits
            # Among equals the likelier, then the earlier one.
            at = max(
                (child for child in self.nodes[at].children if not self.nodes[child].closed),
                key=lambda i: (self._rank(i, visits), self.nodes[i].prior, -i),
            )
        return at

    def add(self, parent: int, branch: Branch, prior: float, value: float) -> int:
        """A new node. A finished one is closed, and its value backed up at once."""
        self.nodes.append(ValueNode(parent, branch, prior, value, closed=bool(branch.finish)))
        at = len(self.nodes) - 1
        self.nodes[parent].children.append(at)
        if branch.finish:
            self.back_up(at)
        return at

    def back_up(self, at: int) -> None:
        """The value of a node counts for it and for all above it."""
        value = self.nodes[at].value
        while at >= 0:
            self.nodes[at].visits += 1
            self.nodes[at].total += value
            at = self.nodes[at].parent

    def close(self, at: int) -> None:
        """Close a node all of whose children are, or that has none, and those above it likewise."""
        while at >= 0 and all(self.nodes[child].closed for child in self.nodes[at].children):
            self.nodes[at].closed = True
            at = self.nodes[at].parent

    def best_ended(self) -> int | None:
        """By the largest Q from the question to a response that the model ended; None where there is none."""
        ending = {at for at, node in enumerate(self.nodes) if node.branch.finish == "eos"}
        leads = set(ending)
        for at in range(len(self.nodes) - 1, 0, -1):  # a child has a larger number than its parent
            if at in leads:
                leads.add(self.nodes[at].parent)
        if not ending:
            return None
        at = 0
        while self.nodes[at].children:
            at = max((i for i in self.nodes[at].children if i in leads), key=lambda i: (self.nodes[i].q, -i))
        return at

    def best_open(self) -> int:
        """The node without children with the largest value; one that may be gone on from, where there is one."""
        leaves = [at for at, node in enumerate(self.nodes) if not node.children]
        return max(leaves, key=lambda i: (not self.nodes[i].branch.finish, self.nodes[i].value, -i))

    def _rank(self, at: int, parent_visits: int) -> float:
        node = self.nodes[at]
        return puct(node.q, node.visits, node.prior, parent_visits, self.weight)
