"""Step pairs from a tree search, after MCTS-DPO (Xie et al. 2024, arXiv 2405.00451).

The search itself is in tree/puct.py, what it requests in mcts_expand.py, how pairs are selected from its tree
in tree/pair_selection.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from stepdpo.core.ranges import at_least, positive
from stepdpo.core.types import Problem
from stepdpo.generation.puct import Prior
from stepdpo.generation.step_sampling import Delimiter, StepEquality
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Requests, Result
from stepdpo.pairs.mcts_expand import Expansion, SelfEvaluation
from stepdpo.pairs.tree.pair_selection import PairSelection
from stepdpo.pairs.tree.puct import PuctSearch


@dataclass(frozen=True)
class Mcts:
    """Select by PUCT down a tree of steps, expand what is missing, grade the answer, back up; then pair siblings.

    argmax of Q + weight p sqrt(N_parent) / (1 + N), with p from a step's log-probability at temperature 1. A walk goes
    on to an answer (+1 right, -1 wrong) or to the depth limit (-1). N_root is the number of walks.
    """

    iterations: int = 32
    """Walks from every step the search commits to; `root_factor` times as many from the question."""
    root_factor: int = 4
    commit: bool = False
    """Go on from the best child, and from its best child, with fresh walks; the authors' way. Without it all walks
    begin at the question."""
    depth_limit: int = 10
    """Most steps; a solution without an answer by then counts as wrong, and its last step is in no pair."""
    n_init_actions: int = 8
    """First steps sampled."""
    n_actions: int = 8
    """Next steps sampled after every other step."""
    breadth_limit: int = 4
    """Most different steps kept after one another."""
    same: StepEquality = StepEquality.formulas
    """Which steps are one: `formulas`, those with the same numbers and signs whatever the words; or `text`."""
    step_tokens: int = 128
    """Longest step; longer ones are left out."""
    init_temperature: float | None = None
    """For first steps; null for the run's own."""
    temperature: float | None = None
    delimiter: Delimiter = Delimiter.step
    weight: float = 1.0
    """Of the exploring term."""
    gamma: float = 1.0
    prior: Prior = Prior.code
    length_power: float = 1.25
    """Log-probabilities are divided by length to this power."""
    self_evaluation: SelfEvaluation = SelfEvaluation.none
    leak_reference: bool = False
    """Show the gold solution to the self-evaluation, and offer its next step as a child; the authors' way."""
    novelty: float = 1.0
    """What a right answer counts if its solution is not the gold one word for word; 1.25 in the authors' code."""
    cut: PairSelection = field(
        default_factory=lambda: PairSelection(min_gap=0.5, most_visited_path=True, merge_chains=False)
    )
    """Which siblings become pairs."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        counts = ("iterations", "root_factor", "depth_limit", "n_init_actions", "n_actions", "step_tokens")
        at_least(1, **{name: getattr(self, name) for name in counts})
        if self.breadth_limit < 2:
            raise ValueError("breadth_limit must be at least 2: a pair needs two siblings")
        positive(init_temperature=self.init_temperature, temperature=self.temperature)

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Walk, then select pairs from the tree."""
        if self.leak_reference and not problem.solution:
            return Result(outcome="no gold solution to leak")
        search = PuctSearch(self.weight, self.gamma)
        expansion = Expansion(self, problem, context, search)
        at: int | None = 0
        walks = self.iterations * self.root_factor
        while at is not None and not search.nodes[at].ended:
            for _ in range(walks):
                yield from expansion.walk(at)
            at, walks = search.best(at) if self.commit else None, self.iterations
        counts = expansion.counts
        counts["steps kept"] += len(search.nodes) - 1
        tree = search.tree(problem, search="mcts", self_evaluation=self.self_evaluation.value)
        pairs = self.cut(tree, counts)
        return Result(pairs, "pairs" if pairs else _why_none(counts), counts, tree.to_row())


def _why_none(counts: Counter[str]) -> str:
    right, wrong = counts["right solutions"], counts["wrong solutions"]
    if not right:
        return "no right solution"
    return "no usable siblings" if wrong else "no wrong solution"
