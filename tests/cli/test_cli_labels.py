"""Labelled data through the real command line: looked at, trained on, written for others and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import stepdpo

from stepdpo.data.dataset import Dataset
from stepdpo.pairs.tree.tree import Node, Tree

STEP, RIGHT, WRONG = (
    "Step 1: 2 + 3 = 5",
    "\nStep 2: 5 + 1 = 6\nThe answer is: 6",
    "\nStep 2: 5 + 1 = 7\nThe answer is: 7",
)
ENDS = (Node(1, RIGHT, 3, 1.0, correct=True), Node(1, WRONG, 1, -1.0, correct=False))
TREE = Tree("p", "2 + 3 + 1?", "6", (Node(-1, "", 4, 0.0), Node(0, STEP, 4, 0.5), *ENDS))


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    (tmp_path / "trees.jsonl").write_text(json.dumps(TREE.to_row()) + "\n")
    return tmp_path


def test_the_labels_of_trees_are_told_and_written_for_others(trees: Path) -> None:
    looked = stepdpo("check", "trees.jsonl", "--json", "found.json", cwd=trees)
    assert looked.code == 0, looked.said
    assert "steps labelled: 3" in looked.out
    assert json.loads((trees / "found.json").read_text())["labels"]["single responses labelled wrong"] == 1
    written = stepdpo("export-data", "trees.jsonl", "--output", "steps.jsonl", cwd=trees)
    assert written.code == 0, written.said
    # Each row is read alone, so the step that both go through is labelled in both; nothing is held out.
    assert "2 responses, 4 steps (3 right) in steps.jsonl" in written.out
    again = Dataset(path=str(trees / "steps.jsonl")).load().preferences
    assert [p.chosen for p in again] == [STEP + RIGHT, STEP + WRONG]
    assert [[mark.value for mark in p.chosen_steps] for p in again] == [[1.0, 1.0], [1.0, 0.0]]


@pytest.mark.slow
def test_a_model_is_trained_on_the_responses_of_trees(trees: Path) -> None:
    done = stepdpo(
        "train", "model=tinymath", "engine=local", "algo=sft", "dataset=trees", "dataset.path=trees.jsonl",
        "dataset.heldout=0", "batch.pairs=2", "max_steps=1", "run=trained", cwd=trees,
    )  # fmt: skip
    assert done.code == 0, done.said
    assert "training on 2 of 2 pairs" in done.out
