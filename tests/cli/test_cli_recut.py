"""Roll-outs, and trees cut again, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import stepdpo

from stepdpo.data.dataset import Dataset
from stepdpo.pairs.tree.tree import Node, Tree

TREE = Tree("p", "2 + 3?", "5", (Node(-1), Node(0, "Step 1: 5", 3, 0.5), Node(0, "Step 1: 6", 1, -0.5)))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rules_that_do_not_exist_are_named(tmp_path: Path) -> None:
    wrong = stepdpo("pairs", "pairs=recut", "pairs.path=x.jsonl", "pairs.cut.min_gp=1", cwd=tmp_path)
    assert wrong.code == 2
    assert "min_gap" in wrong.err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_without_a_path_nothing_is_left(tmp_path: Path) -> None:
    missing = stepdpo("pairs", "pairs=recut", cwd=tmp_path)
    assert missing.code == 2
    assert "pairs.path" in missing.err
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_trees_are_cut_where_there_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "trees.jsonl").write_text(json.dumps(TREE.to_row()) + "\n")
    words = ("pairs=recut", "pairs.path=trees.jsonl", "model=pretrained", "model.path=nowhere", "run=cut")
    done = stepdpo("pairs", *words, cwd=tmp_path)
    assert done.code == 0, done.said
    (pair,) = Dataset(path=str(tmp_path / "runs" / "cut"), max_bad=0).load().preferences
    assert (pair.prefix, pair.chosen, pair.rejected, pair.confidence) == ("Step 1:", " 5", " 6", 0.75)
    again = stepdpo("pairs", *words, "resume=true", cwd=tmp_path)
    assert (again.code, "nothing to resume" in again.out) == (0, True)


@pytest.mark.slow
def test_roll_outs_leave_trees_that_are_cut_again(tmp_path: Path) -> None:
    """The miniature model on a few problems; what the verb chose is among what the cut finds in its trees."""
    small = ("limit=6", "n=4", "sampler.device=cpu", "pairs.rollouts=4", "pairs.max_wrong=2", "pairs.candidates=2")
    made = stepdpo("pairs", "pairs=rollouts", *small, "run=first", cwd=tmp_path)
    assert made.code == 0, made.said
    folder = tmp_path / "runs" / "first"
    trees = [Tree.from_row(row) for row in rows(folder / "trees.jsonl")]
    assert {row["problem"] for row in rows(folder / "finished.jsonl") if row["pairs"]} <= {t.problem for t in trees}
    rules = ("pairs.cut.min_visits=2", "pairs.cut.min_gap=0.5", "pairs.cut.merge_chains=false")
    many = ("pairs.cut.max_pairs_per_parent=99", "pairs.cut.max_pairs_per_tree=999")
    cut = stepdpo("pairs", "pairs=recut", "pairs.path=runs/first", *rules, *many, "run=second", cwd=tmp_path)
    assert cut.code == 0, cut.said
    sides = {
        (row["question"], row["prefix"], row["rejected"]) for row in rows(tmp_path / "runs/second/preferences.jsonl")
    }
    first = rows(folder / "preferences.jsonl")
    assert first
    assert {(row["question"], row["prefix"], row["rejected"]) for row in first} <= sides
    assert all(row["chosen_value"] - row["rejected_value"] >= 0.5 for row in first)
