"""Selects pairs from a tree of steps: which two children of a node are compared, and with what confidence.

Pure functions of trees. The rules are those of MCTS-DPO (Xie et al. 2024, arXiv 2405.00451); the filter by outcome is
our reading of SVPO (Chen et al. 2024, arXiv 2406.10858).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from stepdpo.core.ranges import at_least, within
from stepdpo.core.types import Preference
from stepdpo.pairs.tree.step_pair import preference
from stepdpo.pairs.tree.tree import ROLLOUTS, Tree

SURE_GAP, SURE_VISITS = 0.5, 2
"""The least gap and visits that `outcomes` accepts."""


class SelectBy(Enum):
    """What makes a step the better one."""

    Q = "q"
    VISITS = "visits"


class Rejected(Enum):
    """Which sibling of the best one is rejected."""

    WORST = "worst"
    SECOND = "second"
    RANDOM = "random"


class Smoothing(Enum):
    """How visit counts become label smoothing."""

    VISITS = "visits"
    PAPER = "paper"
    NONE = "none"


@dataclass(frozen=True)
class PairSelection:
    """Pairs of siblings: the best child of a node against worse ones; several that are equally good take turns.

    With N and Q of the two sides, `confidence` = 1 - alpha, where alpha is by `smoothing`
    `visits`: min(N_l / (max(1, N_w) + N_l), 1/2), as MCTS-DPO's code has it;
    `paper`:  1 / (N_w / N_l + 1), and where that is above one half there is no pair;
    `none`:   0.
    Where a tree has no visits at all, or they count roll-outs, alpha is 0. Of roll-outs only measured steps are sides.
    """

    select_by: SelectBy = SelectBy.Q
    """`q`: by Q, then by visits; `visits`: by visits, then by Q. The better side must be strictly better by it."""
    rejected: Rejected = Rejected.WORST
    """The first sibling rejected; further ones follow from there towards the best (`second`: away from it)."""
    min_gap: float = 0.0
    """Q_chosen - Q_rejected at least, in [0, 2]; Q lies in [-1, 1]."""
    min_visits: int = 0
    """Visits that both sides must have."""
    outcomes: bool = False
    """SVPO's filter: a right solution below the chosen side, none below the rejected one, gap >= 0.5, visits >= 2."""
    most_visited_path: bool = False
    """Cut only where the path of the most visited children passes."""
    max_pairs_per_tree: int = 8
    """One pair of every node comes first; among these, the most visited sides."""
    max_pairs_per_parent: int = 1
    smoothing: Smoothing = Smoothing.VISITS
    merge_chains: bool = True
    """A step without an alternative becomes one with the step before it."""
    seed: int = 0
    """Chooses for `rejected=random`."""

    def __post_init__(self) -> None:
        within(0, 2, min_gap=self.min_gap)
        at_least(0, min_visits=self.min_visits)
        at_least(1, max_pairs_per_tree=self.max_pairs_per_tree, max_pairs_per_parent=self.max_pairs_per_parent)

    def __call__(self, tree: Tree, counts: Counter[str]) -> tuple[Preference, ...]:
        """The pairs of a tree; `counts` takes what was compared and what was left out."""
        return tuple(
            preference(tree, chosen, rejected, confidence(tree, chosen, rejected, self.smoothing), self.merge_chains)
            for chosen, rejected in chosen_pairs(tree, self, counts)
        )


def confidence(tree: Tree, chosen: int, rejected: int, smoothing: Smoothing) -> float:
    """P(the chosen side is better) in the eyes of a search: 1 - alpha; see `PairSelection`."""
    # A search goes more often where it finds Q high, so N_w to N_l is a vote. Roll-outs are the same number for every
    # step by design, and rows without visits hold no vote: there the label is taken as it is.
    if smoothing is Smoothing.NONE or not counted(tree):
        return 1.0
    return 1 - alpha(tree.nodes[chosen].visits, tree.nodes[rejected].visits, smoothing)


def alpha(chosen: int, rejected: int, smoothing: Smoothing) -> float:
    """Label smoothing from the visits of both sides."""
    if smoothing is Smoothing.NONE or not rejected:
        return 0.0
    if smoothing is Smoothing.PAPER:
        return rejected / (chosen + rejected)
    # At most one half: above it the loss would prefer the rejected side.
    return min(rejected / (max(1, chosen) + rejected), 0.5)


def counted(tree: Tree) -> bool:
    """Whether visits tell what a search preferred."""
    return tree.visited and tree.meta.get("visits") != ROLLOUTS


def most_visited_path(tree: Tree) -> list[int]:
    """From the root always to the most visited child; among equals to the one of highest Q, then the first."""
    path = [0]
    while children := tree.children[path[-1]]:
        path.append(max(children, key=lambda i: (tree.nodes[i].visits, _q(tree, i), -i)))
    return path


def chosen_pairs(tree: Tree, selection: PairSelection, counts: Counter[str]) -> list[tuple[int, int]]:
    """(chosen, rejected) nodes, by their parents from the root down."""
    parents = most_visited_path(tree) if selection.most_visited_path else range(len(tree.nodes))
    found: list[tuple[int, float, int, int, int]] = []
    for group in (group for parent in parents for group in tree.siblings(parent) if len(group) > 1):
        counts["nodes with siblings"] += 1
        sides = list(_of_siblings(tree, group, selection, counts))[: selection.max_pairs_per_parent]
        counts["nodes with a pair"] += bool(sides)
        for turn, (chosen, rejected) in enumerate(sides):
            visits = tree.nodes[chosen].visits + tree.nodes[rejected].visits
            found.append((turn, -visits, len(found), chosen, rejected))
    # By turn first: a second pair of one node says less than the first pair of another. Then the most visited sides,
    # whose Q is known best; at last by place, so that equal ones are chosen the same way every time.
    kept = sorted(found)[: selection.max_pairs_per_tree]
    counts["pairs over max_pairs_per_tree"] += len(found) - len(kept)
    return [(chosen, rejected) for *_, chosen, rejected in sorted(kept, key=lambda entry: entry[2])]


def _of_siblings(
    tree: Tree, group: Sequence[int], selection: PairSelection, counts: Counter[str]
) -> Iterator[tuple[int, int]]:
    """The best child against others, the others in the order of preference; equally good ones take turns."""
    visits = selection.select_by is SelectBy.VISITS
    known = [i for i in group if (visits or tree.value(i) is not None) and tree.measured(i)]
    if len(known) < 2:
        counts["nodes without values"] += 1
        return
    ranks = {i: _rank(tree, i, visits) for i in known}
    top = max(ranks.values())
    best = [i for i in known if ranks[i] == top]
    others = sorted((i for i in known if ranks[i] != top), key=lambda i: ranks[i])
    if selection.rejected is Rejected.SECOND:
        others.sort(key=lambda i: ranks[i], reverse=True)
    elif selection.rejected is Rejected.RANDOM:
        # Seeded by place: the choice at one node does not hang on which trees and nodes came before it.
        Random(f"{selection.seed}/{tree.problem}/{known[0]}").shuffle(others)
    for turn in range(max(len(best), len(others)) if others else 0):
        chosen, rejected = best[turn % len(best)], others[turn % len(others)]
        if why := refusal(tree, chosen, rejected, selection):
            counts[f"siblings: {why}"] += 1
        else:
            yield chosen, rejected


def refusal(tree: Tree, chosen: int, rejected: int, selection: PairSelection) -> str:
    """Why two siblings are no pair; empty when they are one."""
    better, worse = tree.nodes[chosen], tree.nodes[rejected]
    fewest = max(selection.min_visits, SURE_VISITS if selection.outcomes else 0)
    smallest = max(selection.min_gap, SURE_GAP if selection.outcomes else 0.0)
    gap = _q(tree, chosen) - _q(tree, rejected)
    by_visits = selection.select_by is SelectBy.VISITS
    if better.text.split() == worse.text.split():
        return "the same text"
    if (better.visits <= worse.visits) if by_visits else gap <= 0:
        return "neither is better"
    if gap < smallest - 1e-9:  # Q = 2 m / n - 1 is rounded, and so are gaps
        return "gap too small"
    if tree.visited and min(better.visits, worse.visits) < fewest:
        return "too few visits"
    if counted(tree) and not better.visits + worse.visits:
        return "never visited"
    if counted(tree) and selection.smoothing is Smoothing.PAPER and worse.visits > better.visits:
        return "the rejected side was visited more"
    if selection.outcomes and (not _right_below(tree, chosen) or _right_below(tree, rejected)):
        return "outcomes do not bear it out"
    return ""


def _q(tree: Tree, number: int) -> float:
    """Q, with what is unknown in the middle."""
    found = tree.value(number)
    return 0.0 if found is None else found


def _rank(tree: Tree, number: int, visits: bool) -> tuple[float, float]:
    q, n = _q(tree, number), float(tree.nodes[number].visits)
    return (n, q) if visits else (q, n)


def _right_below(tree: Tree, number: int) -> bool:
    """Whether a right solution goes through a node: an ending at or below it, or a roll-out from there."""
    return any(tree.nodes[i].correct or tree.nodes[i].successes for i in tree.subtree(number))
