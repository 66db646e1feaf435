"""The preferences that ship with the miniature: the labels of their steps are the checker's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stepdpo.core.package_data import ROOT
from stepdpo.core.steps import split_steps
from stepdpo.core.types import Mark, Problem
from stepdpo.data.preference_file import from_row
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

CHECKER = TinymathChecker()


def agree(problem: Problem, text: str, marks: Sequence[Mark]) -> None:
    _, steps = split_steps(text)
    error = CHECKER.first_error(problem, steps)
    right = len(steps) if error is None else error
    assert [mark.value for mark in marks] == ([1.0] * right + [0.0] + [None] * len(steps))[: len(steps)]
    assert marks[-1].end == len(text)


def test_their_labels_are_the_checkers() -> None:
    lines = (ROOT / "tinymath" / "preferences.jsonl").read_text(encoding="utf-8").splitlines()
    known = {problem.id: problem for problem in problems("preference", 2500)}
    for line in lines[::40]:
        p = from_row(json.loads(line))
        problem = known[p.meta["problem"]]
        agree(problem, p.prefix + p.chosen + p.chosen_rest, p.chosen_steps)
        agree(problem, p.prefix + p.rejected + p.rejected_rest, p.rejected_steps)
        assert p.rejected_steps[p.meta["step"]].value == 0
