"""Trees cut into pairs as the verb does it, without a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from omegaconf import OmegaConf

from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.overrides import composed
from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.core.types import Problem
from stepdpo.data.preference_file import from_row
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.config import PairsConfig
from stepdpo.pairs.recut import Recut
from stepdpo.pairs.tree.pair_selection import PairSelection, Smoothing
from stepdpo.pairs.tree.tree import Node, Tree
from stepdpo.runtime.signals import Interrupted

GOOD = Tree(
    "p", "What is 2 + 3 * 4?", "14",
    (
        Node(-1),
        Node(0, "Step 1: 3 * 4 = 12", visits=6, q=0.5),
        Node(0, "Step 1: 2 + 3 = 5", visits=2, q=-1.0),
        Node(1, "\nStep 2: 2 + 12 = 14. The answer is: 14", visits=3, correct=True),
        Node(1, "\nStep 2: 2 + 12 = 15. The answer is: 15", visits=1, correct=False),
    ),
)  # fmt: skip
LONE = Tree("lone", "q", "a", (Node(-1), Node(0, "Step 1: a", visits=1, q=1.0)))
LEVEL = Tree("level", "q", "a", (Node(-1), Node(0, "Step 1: a", 1, 1.0), Node(0, "Step 1: b", 1, 1.0)))


@dataclass(frozen=True)
class Shut:
    """A sampler that must not be opened."""

    def open(self, model: Any) -> NoReturn:
        raise AssertionError("opened")


def spec(*words: str) -> PairsConfig:
    node: Any = OmegaConf.to_container(
        composed("pairs", ["pairs=recut", "model=pretrained", "model.path=nowhere", *words])
    )
    made = build({key: value for key, value in node.items() if key not in LAUNCH_KEYS})
    assert isinstance(made, PairsConfig)
    return replace(made, sampler=Shut())


def write(path: Path, *rows: Tree | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row.to_row())) + "\n" for row in rows))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trees_become_pairs_by_the_given_rules(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", GOOD, LONE, LEVEL)
    build_pairs(spec(f"pairs.path={path}"), tmp_path / "run")
    found = tuple(map(from_row, rows(tmp_path / "run" / "preferences.jsonl")))
    assert found == PairSelection()(GOOD, Counter())
    assert [pair.confidence for pair in found] == [0.75, 0.75]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["outcomes"] == {"pairs": 1, "no step with an alternative": 1, "no values": 1}
    assert "template" not in summary
    build_pairs(spec(f"pairs.path={path}", "pairs.cut.smoothing=none", "pairs.cut.min_visits=2"), tmp_path / "strict")
    (only,) = map(from_row, rows(tmp_path / "strict" / "preferences.jsonl"))
    assert (only.chosen, only.confidence) == (" 3 * 4 = 12", 1.0)


def test_rows_at_fault_are_kept_and_the_others_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", "{broken", GOOD)
    build_pairs(spec(f"pairs.path={path}"), tmp_path / "run")
    ((kept),) = rows(tmp_path / "run" / "quarantine.jsonl")
    assert kept["problem"] == f"{path}:1"
    assert kept["reason"] == "a row that cannot be used"
    assert kept["answer"].startswith("broken JSON")
    assert len(rows(tmp_path / "run" / "preferences.jsonl")) == 2


def test_one_problem_may_have_several_trees(tmp_path: Path) -> None:
    other = replace(GOOD, nodes=(*GOOD.nodes[:2], Node(0, "Step 1: 2 * 4 = 8", visits=2, q=-1.0)))
    path = write(tmp_path / "trees.jsonl", GOOD, other)
    build_pairs(spec(f"pairs.path={path}"), tmp_path / "run")
    assert [row["problem"] for row in rows(tmp_path / "run" / "finished.jsonl")] == ["p", "p#2"]
    assert {row["meta"]["problem"] for row in rows(tmp_path / "run" / "preferences.jsonl")} == {"p"}


@dataclass(frozen=True)
class Stopped:
    """Recut, stopped after so many trees."""

    recut: Recut
    after: int

    needs: ClassVar[frozenset[str]] = Recut.needs

    @property
    def path(self) -> str:
        return self.recut.path

    def problems(self) -> Iterator[Problem]:
        for number, problem in enumerate(self.recut.problems()):
            if number == self.after:
                raise KeyboardInterrupt
            yield problem

    def __call__(self, problem: Problem, context: Any) -> Any:
        return self.recut(problem, context)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stopped_it_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    trees = [replace(GOOD, problem=f"p{i}", question=f"q{i}") for i in range(4)]
    path = write(tmp_path / "trees.jsonl", *trees)
    whole = replace(spec(f"pairs.path={path}"), live=1)
    build_pairs(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        build_pairs(replace(whole, pairs=Stopped(whole.pairs, after)), tmp_path / "run")
    build_pairs(whole, tmp_path / "run", resume=True)
    first, again = (tmp_path / name / "preferences.jsonl" for name in ("whole", "run"))
    assert first.read_bytes() == again.read_bytes()


def test_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", *(replace(GOOD, problem=f"p{i}") for i in range(4)))
    assert build_pairs(spec(f"pairs.path={path}", "limit=2"), tmp_path / "run")["problems"] == 2


def test_nothing_comes_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pair.*looser rules \(pairs.cut\)"):
        build_pairs(spec(f"pairs.path={write(tmp_path / 'a.jsonl', LONE)}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    lacking = json.dumps({"problem": "p", "nodes": []})
    with pytest.raises(UserError, match=r"no tree in it\n.*b.jsonl:1: no 'question'"):
        build_pairs(spec(f"pairs.path={write(tmp_path / 'b.jsonl', lacking)}"), tmp_path / "run")
    with pytest.raises(UserError, match="no such file"):
        build_pairs(spec(f"pairs.path={tmp_path / 'c.jsonl'}"), tmp_path / "run")


def test_rules_of_the_file_are_all_there_are() -> None:
    """A section without a target of its own: its keys are the fields of PairSelection."""
    section: Any = composed("pairs", ["pairs=recut", "pairs.path=x"]).pairs.cut
    assert set(section) == set(PairSelection.__dataclass_fields__)
    assert spec("pairs.path=x").pairs.cut == PairSelection()
    with pytest.raises(UserError, match=r"smoothing.*did you mean 'visits'"):
        spec("pairs.path=x", "pairs.cut.smoothing=visit")
    assert spec("pairs.path=x", "pairs.cut.smoothing=none").pairs.cut.smoothing is Smoothing.NONE
