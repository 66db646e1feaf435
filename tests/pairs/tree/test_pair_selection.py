"""Cutting trees into pairs, on a tree worked by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from stepdpo.pairs.tree.pair_selection import (
    ROLLOUTS,
    PairSelection,
    Rejected,
    SelectBy,
    Smoothing,
    alpha,
    chosen_pairs,
    most_visited_path,
)
from stepdpo.pairs.tree.step_pair import chain_end, preference
from stepdpo.pairs.tree.tree import Node, Tree

SEARCHED = Tree(
    "p", "What is 2 + 3 * 4?", "14",
    (
        Node(-1),
        Node(0, "Think.\nStep 1: 3 * 4 = 12", visits=6, q=0.5),  # 1
        Node(0, "Think.\nStep 1: 2 + 3 = 5", visits=4, q=-1.0),  # 2
        Node(0, "Think.\nStep 1: 3 * 4 = 13", visits=8, q=-0.25),  # 3
        Node(0, "Think.\nStep 1: 4 * 3 = 12", visits=0, q=0.25),  # 4
        Node(1, "\nStep 2: 2 + 12 = 14. The answer is: 14", visits=3, correct=True),  # 5
        Node(1, "\nStep 2: 2 + 12 = 15. The answer is: 15", visits=1, correct=False),  # 6
        Node(2, "\nStep 2: 5 * 4 = 20", visits=2, q=-1.0),  # 7
        Node(7, "\nStep 3: So. The answer is: 20", visits=2, correct=False),  # 8
        Node(3, "\nStep 2: 2 + 13 = 15. The answer is: 15", visits=4, correct=False),  # 9
        Node(3, "\nStep 2: 2 + 12 = 14. The answer is: 14", visits=1, correct=True),  # 10
    ),
)  # fmt: skip


def pairs(tree: Tree = SEARCHED, **settings: Any) -> list[tuple[int, int]]:
    return chosen_pairs(tree, PairSelection(**settings), Counter())


def test_every_node_with_siblings_gives_its_best_against_its_worst() -> None:
    """Children of 0 by Q: 1 (.5), 4 (.25), 3 (-.25), 2 (-1); of 1: 5 over 6; of 3: 10 over 9."""
    assert pairs() == [(1, 2), (5, 6), (10, 9)]
    assert pairs(rejected=Rejected.SECOND) == [(1, 4), (5, 6), (10, 9)]
    assert pairs(max_pairs_per_parent=2) == [(1, 2), (1, 3), (5, 6), (10, 9)]
    assert pairs(max_pairs_per_parent=9, rejected=Rejected.SECOND)[:3] == [(1, 4), (1, 3), (1, 2)]


def test_a_random_sibling_is_decided_by_the_seed() -> None:
    found = {seed: pairs(rejected=Rejected.RANDOM, seed=seed) for seed in range(30)}
    assert found == {seed: pairs(rejected=Rejected.RANDOM, seed=seed) for seed in range(30)}
    assert {some[0] for some in found.values()} == {(1, 2), (1, 3), (1, 4)}


def test_by_visits() -> None:
    """Children of 0 by N: 3 (8), 1 (6), 2 (4), 4 (0). 3 is below 4 and 1 in Q, so it meets 2."""
    assert pairs(select_by=SelectBy.VISITS) == [(3, 2), (5, 6)]
    counts: Counter[str] = Counter()
    chosen_pairs(SEARCHED, PairSelection(select_by=SelectBy.VISITS), counts)
    assert counts["siblings: gap too small"] == 3


def test_most_visited_path() -> None:
    """3 has 8 visits, and 9 four of them."""
    assert most_visited_path(SEARCHED) == [0, 3, 9]
    assert pairs(most_visited_path=True) == [(1, 2), (10, 9)]


def test_gap_and_visits() -> None:
    """Gaps: 1.5 at the root, 2 below; fewest visits: 4 and 1."""
    assert pairs(min_gap=1.5) == [(1, 2), (5, 6), (10, 9)]
    assert pairs(min_gap=1.6) == [(5, 6), (10, 9)]
    assert pairs(min_visits=2) == [(1, 2)]


def test_the_filter_by_outcome() -> None:
    """3 leads to a right solution (10), so it is not rejected; the pairs below have a side with one visit."""
    assert pairs(outcomes=True, max_pairs_per_parent=9) == [(1, 2)]
    wrong = replace(SEARCHED, nodes=tuple(replace(n, correct=False) if n.correct else n for n in SEARCHED.nodes))
    assert pairs(wrong, outcomes=True) == []


def test_few_pairs_a_tree_are_those_of_the_most_visited() -> None:
    """Visits of the sides: 10 (1, 2), 14 (1, 3), 4 (5, 6), 5 (10, 9); the first pair of every node goes before."""
    assert pairs(max_pairs_per_tree=2) == [(1, 2), (10, 9)]
    assert pairs(max_pairs_per_tree=3, max_pairs_per_parent=2) == [(1, 2), (5, 6), (10, 9)]


def test_never_visited_sides_make_no_pair() -> None:
    idle = replace(
        SEARCHED, nodes=tuple(replace(n, visits=0) if i in (1, 2) else n for i, n in enumerate(SEARCHED.nodes))
    )
    assert pairs(idle, max_pairs_per_parent=3) == [(1, 3), (5, 6), (10, 9)]


def test_without_any_visits_they_do_not_matter() -> None:
    plain = replace(SEARCHED, nodes=tuple(replace(n, visits=0) for n in SEARCHED.nodes))
    assert pairs(plain, min_visits=5) == [(1, 2), (5, 6), (10, 9)]
    assert {p.confidence for p in PairSelection()(plain, Counter())} == {1.0}
    assert pairs(plain, select_by=SelectBy.VISITS) == []


def test_equal_texts_are_no_pair() -> None:
    same = replace(SEARCHED, nodes=(*SEARCHED.nodes, Node(6, " a", q=1.0, visits=1), Node(6, "a ", q=0.0, visits=1)))
    assert pairs(same) == pairs()


@pytest.mark.parametrize(
    ("chosen", "rejected", "visits", "paper"),
    [
        (4, 4, 0.5, 0.5),  # N_l / (N_w + N_l)
        (6, 2, 0.25, 0.25),
        (99, 1, 0.01, 0.01),
        (1, 3, 0.5, 0.75),  # the code's stays within one half
        (0, 1, 0.5, 1.0),  # N_w = 0 counts as 1
        (5, 0, 0.0, 0.0),
    ],
)
def test_label_smoothing(chosen: int, rejected: int, visits: float, paper: float) -> None:
    assert alpha(chosen, rejected, Smoothing.VISITS) == pytest.approx(visits)
    assert alpha(chosen, rejected, Smoothing.PAPER) == pytest.approx(paper)
    assert alpha(chosen, rejected, Smoothing.NONE) == 0


def test_smoothing_reaches_the_pair() -> None:
    """N of the sides: 6 and 4, 3 and 1, 1 and 4."""
    assert [p.confidence for p in PairSelection()(SEARCHED, Counter())] == pytest.approx([0.6, 0.75, 0.5])
    assert [p.confidence for p in PairSelection(smoothing=Smoothing.PAPER)(SEARCHED, Counter())] == pytest.approx(
        [0.6, 0.75]
    )
    assert [p.confidence for p in PairSelection(smoothing=Smoothing.NONE)(SEARCHED, Counter())] == [1, 1, 1]


def test_of_roll_outs_only_measured_steps_are_sides() -> None:
    """Eight roll-outs after 1 and 2; 3 is the rest of one. Equal counts say nothing of confidence."""
    nodes = (
        Node(-1),
        Node(0, "a", 8, 0.5, successes=6),
        Node(0, "b", 8, -1.0, successes=0),
        Node(0, "c", 1, correct=True),
    )
    tree = Tree("p", "q", "a", nodes, meta={"visits": ROLLOUTS})
    (pair,) = PairSelection()(tree, Counter())
    assert (pair.chosen, pair.rejected, pair.confidence) == ("a", "b", 1.0)
    assert pairs(replace(tree, meta={})) == [(3, 2)]


def test_equally_good_steps_take_turns() -> None:
    """Two right and three wrong endings: the right ones alternate, the wrong ones come in their order."""
    right = {1: True, 2: False, 3: True, 4: False, 5: False}
    tree = Tree("p", "q", "a", (Node(-1), *(Node(0, f"s{i}", correct=r) for i, r in right.items())))
    assert pairs(tree, max_pairs_per_parent=9) == [(1, 2), (3, 4), (1, 5)]
    assert pairs(tree) == [(1, 2)]


def test_steps_after_different_feedback_are_no_siblings() -> None:
    turns = ("", "One.", "One.", "Two.", "Two.")
    texts = ("wrong", "a", "b", "c", "d")
    parents = (0, 1, 1, 1, 1)
    q = (-1, 1, -1, 1, -1)
    nodes = [Node(p, t, q=v, feedback=f) for p, t, v, f in zip(parents, texts, q, turns, strict=True)]
    tree = Tree("p", "q", "a", (Node(-1), *nodes))
    assert pairs(tree) == [(2, 3), (4, 5)]
    with pytest.raises(ValueError, match="same node"):
        preference(tree, 2, 5)
    pair = preference(tree, 4, 5)
    assert [(turn.role, turn.content) for turn in pair.history] == [("assistant", "wrong"), ("user", "Two.")]
    assert (pair.prefix, pair.chosen, pair.rejected) == ("", "c", "d")


def test_a_turn_ends_a_solution() -> None:
    """Neither the chain nor the rest of a step runs on into what was said after an answer to it."""
    nodes = (Node(-1), Node(0, "a", q=1.0), Node(0, "b", q=0.0), Node(1, "c", correct=True, feedback="Go on."))
    tree = Tree("p", "q", "a", nodes)
    assert chain_end(tree, 1) == 1
    assert tree.endings(1) == []
    assert (preference(tree, 1, 2, merged=True).chosen, preference(tree, 1, 2).chosen_rest) == ("a", "")


def test_chains_become_one_step() -> None:
    """2 - 7 - 8 is a chain; 1 has two children."""
    assert [chain_end(SEARCHED, i) for i in (1, 2, 3, 7)] == [1, 8, 3, 8]
    merged, plain = PairSelection()(SEARCHED, Counter())[0], PairSelection(merge_chains=False)(SEARCHED, Counter())[0]
    assert (merged.rejected, merged.rejected_rest) == (
        " 2 + 3 = 5\nStep 2: 5 * 4 = 20\nStep 3: So. The answer is: 20", "",
    )  # fmt: skip
    assert (plain.rejected, plain.rejected_rest) == (" 2 + 3 = 5", merged.rejected.removeprefix(" 2 + 3 = 5"))
    assert merged.chosen == plain.chosen == " 3 * 4 = 12"


def test_the_line_break_after_a_chain_belongs_to_the_rest() -> None:
    """Steps that end with their line break rather than begin with it, as `split_steps` has them."""
    texts = ("", "Step 1: a\n", "Step 1: b\n", "Step 2: c\n", "Step 3: d", "Step 3: e")
    parents = (-1, 0, 0, 1, 3, 3)
    nodes = [Node(parent, text) for parent, text in zip(parents, texts, strict=True)]
    nodes[4] = replace(nodes[4], correct=True)
    pair = preference(Tree("p", "q", "a", tuple(nodes)), 1, 2, merged=True)
    assert (pair.chosen, pair.chosen_rest) == (" a\nStep 2: c", "\nStep 3: d")


@pytest.mark.parametrize("settings", [{"min_gap": 2.1}, {"min_visits": -1}, {"max_pairs_per_tree": 0}])
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PairSelection(**settings)
