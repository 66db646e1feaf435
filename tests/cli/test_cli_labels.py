"""Labelled data through the real command line: looked at, trained on, written for others and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


KTO_ROWS = [{"prompt": "2 + 3?", "completion": f"The answer is: {end}", "label": end == 5} for end in (5, 6)]
STEPWISE_ROWS = [
    {"prompt": "2 + 3 + 1?", "completions": [STEP, end], "labels": [True, end is RIGHT]} for end in (RIGHT, WRONG)
]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [None, KTO_ROWS, STEPWISE_ROWS], ids=["trees", "kto", "stepwise"])
@pytest.mark.exhaustive
def test_a_model_is_trained_on_the_right_responses_and_on_wrong_ones_if_asked(trees: Path, rows: Any) -> None:
    if rows:
        (trees / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("jsonl", "rows.jsonl") if rows else ("trees", "trees.jsonl")
    words = (
        "model=tinymath", "engine=local", "algo=sft", f"dataset={given[0]}", f"dataset.path={given[1]}",
        "dataset.heldout=0", "batch.pairs=1", "max_steps=1",
    )  # fmt: skip
    done = stepdpo("train", *words, "run=right", cwd=trees)
    assert done.code == 0, done.said
    assert "1 responses labelled wrong" in done.out
    assert "training on 1 of 2 pairs" in done.out
    assert "; 1 left out: labelled wrong; " in done.out
    kept = stepdpo("train", *words, "algo.keep_wrong=true", "run=both", cwd=trees)
    assert kept.code == 0, kept.said
    assert "training on 2 of 2 pairs" in kept.out
