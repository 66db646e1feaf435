"""Trees of steps, worked by hand."""

from __future__ import annotations

import json

import pytest

from stepdpo.pairs.tree.step_pair import preference, shared_label
from stepdpo.pairs.tree.tree import Node, Tree, chain

HAND = Tree(
    "p", "What is 2 + 3 * 4?", "14",
    (
        Node(-1),
        Node(0, "Think.\nStep 1: 3 * 4 = 12", visits=5, q=0.5),
        Node(0, "Think.\nStep 1: 2 + 3 = 5", visits=3, q=-1.0),
        Node(1, "\nStep 2: 2 + 12 = 14. The answer is: 14", visits=3, correct=True),
        Node(1, "\nStep 2: 2 + 12 = 15. The answer is: 15", visits=1, correct=False),
        Node(2, "\nStep 2: 5 * 4 = 20. The answer is: 20", visits=2, correct=False),
    ),
)  # fmt: skip


def test_paths_texts_and_endings() -> None:
    assert HAND.children == ((1, 2), (3, 4), (5,), (), (), ())
    assert HAND.path(4) == [0, 1, 4]
    assert HAND.text(4) == "Think.\nStep 1: 3 * 4 = 12\nStep 2: 2 + 12 = 15. The answer is: 15"
    assert HAND.endings(1) == [3, 4]
    assert HAND.endings(0) == [3, 4, 5]


def test_a_pair_of_first_steps() -> None:
    """Both sides share the head and the label; each goes on to the ending that bears it out."""
    pair = preference(HAND, 1, 2, confidence=0.8, rule="q")
    assert pair.prefix == "Think.\nStep 1:"
    assert (pair.chosen, pair.rejected) == (" 3 * 4 = 12", " 2 + 3 = 5")
    assert pair.chosen_rest == "\nStep 2: 2 + 12 = 14. The answer is: 14"
    assert pair.rejected_rest == "\nStep 2: 5 * 4 = 20. The answer is: 20"
    assert (pair.chosen_value, pair.rejected_value, pair.confidence) == (0.5, -1.0, 0.8)
    assert pair.meta == {"problem": "p", "step": 0, "rule": "q"}


def test_a_pair_of_later_steps() -> None:
    pair = preference(HAND, 3, 4)
    assert pair.prefix == "Think.\nStep 1: 3 * 4 = 12\nStep 2:"
    assert pair.chosen == " 2 + 12 = 14. The answer is: 14"
    assert pair.meta["step"] == 1


def test_a_pair_needs_one_parent() -> None:
    with pytest.raises(ValueError, match="same node"):
        preference(HAND, 3, 5)


def test_a_row_and_back() -> None:
    row = json.loads(json.dumps(HAND.to_row()))
    assert Tree.from_row(row) == HAND
    assert row["nodes"][0] == {"parent": -1}


def test_a_node_comes_after_its_parent() -> None:
    with pytest.raises(ValueError, match="node 1 has parent 1"):
        Tree("p", "q", "a", (Node(-1), Node(1)))


def test_what_is_no_shared_label() -> None:
    assert shared_label("", "Step 1: a", "Step 2: b") == ""
    assert shared_label("", "So a", "So b") == ""
    assert shared_label("x\n", "Step 3: a", "Step 3: b") == "Step 3:"


def test_a_chain() -> None:
    assert chain(["a", "b"], 4, 7) == [Node(4, "a"), Node(7, "b")]


def test_values_of_a_pair_stay_in_their_range() -> None:
    """An opinion of 0.7 and a right answer make Q = 1.7; data sets hold values from -1 to 1."""
    tree = Tree("p", "q", "1", (Node(-1), Node(0, "a", 1, 1.7), Node(0, "b", 1, -1.2)))
    pair = preference(tree, 1, 2)
    assert (pair.chosen_value, pair.rejected_value) == (1.0, -1.0)
