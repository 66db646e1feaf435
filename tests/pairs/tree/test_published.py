"""Trees from rows that others published."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.rows import BadRow
from stepdpo.pairs.tree.files import read_trees
from stepdpo.pairs.tree.pair_selection import PairSelection
from stepdpo.pairs.tree.tree import Node, Tree

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("STEPDPO_SHARED", ROOT.parent / "shared")) / "data"
EXAMPLE = SHARED / "ultrainteract_pair_example.jsonl"


def write(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def trees(path: str) -> list[Tree]:
    return [item for item in read_trees(path) if isinstance(item, Tree)]


def bad(path: str) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in read_trees(path) if isinstance(item, BadRow)]


def essence(preference: Preference) -> tuple[Any, ...]:
    p = preference
    return p.question, p.prefix, p.chosen, p.rejected, p.chosen_rest, p.rejected_rest, p.history, p.whole


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": "assistant" if i % 2 else "user", "value": text} for i, text in enumerate(texts)]


def action(tree: str, at: str, trajectory: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    name = {"id": f"{tree}_{at}", "parent_id": tree, "task": "Math_CoT", "dataset": "MATH"}
    return {**name, "trajectory": trajectory, "chosen": chosen, "rejected": rejected}


ROWS = [
    action("a", "1_1", said("2 + 3?"), "Step 1: 2 + 3 = 5", "Step 1: 2 + 3 = 6"),
    action("b", "1_1", said("1 + 1?"), "2", "3"),
    action("a", "3_2", said("2 + 3?", "Step 1: 2 + 3 = 6", "Wrong."), "So 5", "So 7"),
    action("a", "1_1", said("2 + 3?"), "It is 5", "It is 8"),
    action("b", "3_2", said("1 + 1?", "3", "No."), "Two", "Four"),
    action("a", "3_2", said("2 + 3?", "Step 1: 2 + 3 = 6", "Try again."), "5", "9"),
    action("a", "5_3", said("2 + 3?", "Step 1: 2 + 3 = 6", "Wrong.", "So 7", "Still wrong."), "Five", "Six"),
]


def test_ultrainteract_becomes_trees_of_actions(tmp_path: Path) -> None:
    """Tree b ends with row 5 and comes first; siblings after the same feedback only."""
    second, first = trees(write(tmp_path / "rows.jsonl", ROWS))[::-1]
    assert (first.problem, first.question, len(first.nodes)) == ("b", "1 + 1?", 5)
    assert [node.text for node in second.nodes[1:5]] == ["Step 1: 2 + 3 = 5", "Step 1: 2 + 3 = 6", "So 5", "So 7"]
    wrong = second.nodes.index(Node(0, "Step 1: 2 + 3 = 6", correct=False))
    assert [[second.nodes[i].text for i in group] for group in second.siblings(wrong)] == [["So 5", "So 7"], ["5", "9"]]
    deepest = next(i for i, node in enumerate(second.nodes) if node.text == "Five")
    assert second.turns(deepest) == (
        Turn("assistant", "Step 1: 2 + 3 = 6"), Turn("user", "Wrong."),
        Turn("assistant", "So 7"), Turn("user", "Still wrong."),
    )  # fmt: skip
    assert second.text(deepest) == "Five"


def test_its_pairs_are_those_that_the_dataset_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    cut = PairSelection(max_pairs_per_parent=2)
    found = [pair for tree in trees(path) for pair in cut(tree, Counter())]
    read = Dataset(path=path, max_bad=0).load().preferences
    assert Counter(map(essence, found)) == Counter(map(essence, read))
    assert {pair.confidence for pair in found} == {1.0}
    assert found[0].meta == {"problem": "b", "step": 0, "task": "Math_CoT", "dataset": "MATH"}


@pytest.mark.shared
@pytest.mark.skipif(not EXAMPLE.exists(), reason="needs the shared data")
def test_the_published_row() -> None:
    (tree,) = trees(str(EXAMPLE))
    (pair,) = PairSelection()(tree, Counter())
    (read,) = Dataset(path=str(EXAMPLE)).load().preferences
    assert essence(pair) == essence(read)
    assert len(pair.history) == 4


def test_an_action_both_right_and_wrong_is_neither(tmp_path: Path) -> None:
    rows = [action("a", "1_1", said("q?"), "x", "y"), action("a", "1_1", said("q?"), "y", "z")]
    (tree,) = trees(write(tmp_path / "rows.jsonl", rows))
    assert [(node.text, node.correct) for node in tree.nodes[1:]] == [("x", True), ("y", None), ("z", False)]


def test_rows_of_actions_that_cannot_be_used(tmp_path: Path) -> None:
    rows = [
        ROWS[0],
        {**ROWS[1], "chosen": " "},
        {**ROWS[1], "trajectory": said("1 + 1?", "3")},
        "{broken",
        {**ROWS[1], "trajectory": "1 + 1?"},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    assert [tree.problem for tree in trees(path)] == ["a"]
    lines = dict(bad(path))
    assert sorted(lines) == [2, 3, 4, 5]
    assert "'chosen' is empty" in lines[2]
    assert "take turns" in lines[3]
    assert "broken JSON" in lines[4]
    assert "expected a list of turns" in lines[5]


STEPS = [
    {"id": 1, "parent_id": None, "question": "2 + 3 * 4?", "answer": 14, "text": ""},
    {"id": 4, "parent_id": 2, "text": "Step 2: 2 + 12 = 14", "correct": True, "visits": 3},
    {"id": 2, "parent_id": 1, "text": "Step 1: 3 * 4 = 12", "value": 0.5, "visits": 5},
    {"id": 3, "parent_id": 1, "text": "Step 1: 2 + 3 = 5", "value": -1, "visits": 3},
    {"id": 5, "parent_id": 2, "text": "Step 2: 2 + 12 = 15", "correct": False, "visits": 1},
]


def test_rows_with_parents(tmp_path: Path) -> None:
    """In any order; where no white space lies between two texts, a line break is put there."""
    (tree,) = trees(write(tmp_path / "rows.jsonl", STEPS))
    assert (tree.problem, tree.question, tree.answer) == ("1", "2 + 3 * 4?", "14")
    assert tree.nodes == (
        Node(-1),
        Node(0, "Step 1: 3 * 4 = 12", visits=5, q=0.5),
        Node(0, "Step 1: 2 + 3 = 5", visits=3, q=-1.0),
        Node(1, "\nStep 2: 2 + 12 = 14", visits=3, correct=True),
        Node(1, "\nStep 2: 2 + 12 = 15", visits=1, correct=False),
    )
    pairs = PairSelection()(tree, Counter())
    assert [(p.prefix, p.chosen, p.rejected, p.confidence) for p in pairs] == [
        ("Step 1:", " 3 * 4 = 12", " 2 + 3 = 5", 1 - 3 / 8),
        ("Step 1: 3 * 4 = 12\nStep 2:", " 2 + 12 = 14", " 2 + 12 = 15", 1 - 1 / 4),
    ]


@pytest.mark.parametrize(
    "root",
    [
        {"id": 1, "text": "2 + 3 * 4?"},  # the root's text is the question
        None,  # no row for the root: its children name it, and one of them the question
        {"id": 1, "parent_id": "", "text": " ", "question": "2 + 3 * 4?"},
    ],
)
def test_where_the_question_stands(tmp_path: Path, root: dict[str, Any] | None) -> None:
    rest = STEPS[1:] if root else [{**STEPS[1], "question": "2 + 3 * 4?"}, *STEPS[2:]]
    (tree,) = trees(write(tmp_path / "rows.jsonl", [*rest, *([root] if root else [])]))
    assert (tree.problem, tree.question, len(tree.nodes)) == ("1", "2 + 3 * 4?", 5)


def test_first_steps_may_name_their_question_only(tmp_path: Path) -> None:
    rows = [{"id": f"{q}{i}", "text": f"s{i}", "question": q, "correct": i == 0} for i in range(3) for q in "ab"]
    found = trees(write(tmp_path / "rows.jsonl", rows))
    assert [(t.problem, t.question, [n.text for n in t.nodes]) for t in found] == [
        ("a0", "a", ["", "s0", "s1", "s2"]), ("b0", "b", ["", "s0", "s1", "s2"]),
    ]  # fmt: skip


def test_turns_in_rows_with_parents(tmp_path: Path) -> None:
    rows = [*STEPS, {"id": 6, "parent_id": 5, "feedback": "No.", "text": "Then 14"}]
    (tree,) = trees(write(tmp_path / "rows.jsonl", rows))
    assert tree.text(5) == "Then 14"
    assert tree.turns(5) == (Turn("assistant", "Step 1: 3 * 4 = 12\nStep 2: 2 + 12 = 15"), Turn("user", "No."))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 4, "parent_id": 1, "text": "x"}, "'4' is the id of"),
        ({"parent_id": 1, "text": "x"}, "no column 'id'"),
        ({"id": 9, "parent_id": 2, "text": ""}, "'text' is empty"),
        ({"id": 9, "parent_id": 2}, "no column 'text'"),
        ({"id": 9, "parent_id": 2, "text": "x", "value": 7}, "not between -1 and 1"),
        ({"id": 9, "parent_id": 2, "text": "x", "visits": 1.5}, "not a whole number"),
        ({"id": 9, "parent_id": 2, "text": "x", "correct": "yes"}, "expected true or false"),
        ({"id": 9, "parent_id": 9, "text": "x"}, "lead back to itself"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "rows.jsonl", [*STEPS, row])
    ((line, why),) = bad(path)
    assert line == 6
    assert reason in why
    (tree,) = [tree for tree in trees(path) if tree.problem == "1"]
    assert len(tree.nodes) == 5


def test_what_hangs_below_a_bad_row_is_bad(tmp_path: Path) -> None:
    rows = [{**row, "visits": -1} if row["id"] == 2 else row for row in STEPS]
    path = write(tmp_path / "rows.jsonl", rows)
    assert [line for line, _ in sorted(bad(path))] == [2, 3, 5]
    assert [len(tree.nodes) for tree in trees(path)] == [2]


def test_a_circle_of_parents(tmp_path: Path) -> None:
    rows = [*STEPS, {"id": "x", "parent_id": "y", "text": "x"}, {"id": "y", "parent_id": "x", "text": "y"}]
    assert [line for line, _ in bad(write(tmp_path / "rows.jsonl", rows))] == [6, 7]


def test_a_tree_without_a_question(tmp_path: Path) -> None:
    ((line, why),) = bad(write(tmp_path / "rows.jsonl", STEPS[1:]))
    assert line == 1
    assert "question" in why


TREE = Tree("p", "q", "a", (Node(-1), Node(0, "x", 2, 0.5), Node(0, "y", 1, -0.5, correct=False, feedback="f")))


def test_trees_of_a_run(tmp_path: Path) -> None:
    write(tmp_path / "trees.jsonl", [TREE.to_row()])
    (tmp_path / "finished.jsonl").write_text("")
    assert trees(str(tmp_path)) == trees(str(tmp_path / "trees.jsonl")) == [TREE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nodes": []}, "at least one node"),
        ({"nodes": [{"parent": 0}]}, "node 0 has parent 0"),
        ({"nodes": [{"parent": -1}, {"text": "x"}]}, "parent"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "text": 5}]}, "text is 5"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "visits": True}]}, "visits is True"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "q": 3}]}, "not between -1 and 1"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "visits": 10**400}]}, "visits is 10000000000000000000, not between"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "prior": float("nan")}]}, "prior is nan, not between"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "visits": 2, "successes": 3}]}, "3 successes of 2 visits"),
        ({"nodes": [{"parent": -1}, {"parent": 0, "value": 3}]}, "unknown 'value'"),
        ({"question": None}, "question: expected a string"),
    ],
)
def test_a_tree_that_is_none(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    ((line, why),) = bad(write(tmp_path / "trees.jsonl", [TREE.to_row(), {**TREE.to_row(), **change}]))
    assert line == 2
    assert reason in why


def test_what_is_no_file_of_trees(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no trees in these columns: chosen, question.*\n  problem, nodes"):
        trees(write(tmp_path / "pairs.jsonl", [{"question": "q", "chosen": "c"}]))
    with pytest.raises(UserError, match="none of the first"):
        trees(write(tmp_path / "broken.jsonl", ["{"]))
    (tmp_path / "finished.jsonl").write_text("")
    (tmp_path / "preferences.jsonl").write_text("")
    with pytest.raises(UserError, match=r"left no trees\.jsonl"):
        trees(str(tmp_path))
    (tmp_path / "trees.partial.jsonl").write_text("")
    with pytest.raises(UserError, match="has not finished"):
        trees(str(tmp_path))
