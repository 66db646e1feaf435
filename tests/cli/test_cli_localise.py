"""Step-DPO's three stages through the real command line, with the shipped miniature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import stepdpo
from support.scripted import grade, whole

from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, Preference, Problem
from stepdpo.data.preference_file import from_row
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

SMALL = ("pairs", "pairs=localise", "n=4", "max_tokens=160", "pairs.rectify=6", "sampler.device=cpu", "run=x")
KNOWN = {problem.question: problem for problem in problems("preference", 16)}


def made(root: Path) -> Iterator[tuple[Problem, Preference]]:
    for line in (root / "runs" / "x" / "preferences.jsonl").read_text().splitlines():
        preference = from_row(json.loads(line))
        yield KNOWN[preference.question], preference


def first_errors(problem: Problem, preference: Preference) -> tuple[int | None, int | None]:
    """Of both sides, by the exact checker."""
    right, wrong = (TinymathChecker().first_error(problem, split_steps(text)[1]) for text in whole(preference))
    return right, wrong


@pytest.mark.slow
def test_pairs_by_the_exact_judge_are_right(tmp_path: Path) -> None:
    done = stepdpo(*SMALL, "limit=6", "judge=exact", "pairs.check_chosen=true", cwd=tmp_path)
    assert done.code == 0, done.said
    pairs = list(made(tmp_path))
    assert len(pairs) > 1
    for problem, preference in pairs:
        step = preference.meta["step"]
        right, wrong = first_errors(problem, preference)
        assert wrong == step
        assert right is None or right > step
        assert preference.prefix.endswith(f"Step {step + 1}:")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_pairs_by_roll_outs_end_as_they_should_and_are_mostly_right(tmp_path: Path) -> None:
    """No checker is asked: of nothing but final answers, most wrong steps are found exactly."""
    done = stepdpo(*SMALL, "limit=16", "judge=rollouts", cwd=tmp_path)
    assert done.code == 0, done.said
    pairs = list(made(tmp_path))
    for problem, preference in pairs:
        chosen, rejected = grade([(text, problem) for text in whole(preference)])
        assert chosen.verdict == CORRECT != rejected.verdict
    exact = [first_errors(problem, preference)[1] == preference.meta["step"] for problem, preference in pairs]
    assert len(exact) > 4
    assert sum(exact) > len(exact) / 2
    summary: dict[str, Any] = json.loads((tmp_path / "runs" / "x" / "summary.json").read_text())
    assert summary["counts"]["judge: roll-outs"] > summary["counts"]["judge: prefixes"] > 0
