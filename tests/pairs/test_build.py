"""The pairs verb: its configuration, its problems, its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.constructions import SMALL, composed
from support.forgetful import forgetful

from stepdpo.core.errors import UserError
from stepdpo.core.steps import split_steps
from stepdpo.data.preference_file import from_row
from stepdpo.data.tasks import Task
from stepdpo.pairs.build import build_pairs
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import owner, problems


def test_the_configuration_of_the_verb() -> None:
    spec = composed("n=3", "pairs.resample=2", "top_p=0.95")
    assert (spec.n, spec.top_p, spec.pairs.resample, spec.limit) == (3, 0.95, 2, None)


def test_preferences_are_written_and_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = build_pairs(forgetful(12), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "preferences.jsonl").read_text().splitlines()]
    assert len(rows) == counts["pairs"] > 12
    known = {p.question: p for p in problems("preference", 12)}
    for preference in map(from_row, rows):
        problem, step = known[preference.question], preference.meta["step"]
        check = TinymathChecker().first_error
        right = preference.prefix + preference.chosen + preference.chosen_rest
        wrong = preference.prefix + preference.rejected + preference.rejected_rest
        assert check(problem, split_steps(right)[1][: step + 1]) is None
        assert check(problem, split_steps(wrong)[1]) == step
        assert not preference.prefix.startswith("\n")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["counts"] == counts
    assert summary["template"] == "plain"
    printed = capsys.readouterr().out
    assert all(f"{number:,}  {name}" in printed for name, number in counts.items())


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    spec = forgetful(6)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_pairs(replace(spec, seed=seed), tmp_path / name)
    first, again, other = ((tmp_path / name / "preferences.jsonl").read_bytes() for name in "abc")
    assert first == again != other


def test_the_miniatures_own_split_is_used(tmp_path: Path) -> None:
    build_pairs(forgetful(5), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert {owner(row["question"]) for row in rows} == {"preference"}


def test_a_model_that_knows_nothing_gives_no_pair(tmp_path: Path) -> None:
    words = ("limit=3", "n=2", "max_tokens=20", "sampler.device=cpu", "sampler.progress=false")
    with pytest.raises(UserError, match="no pair"):
        build_pairs(replace(composed(*words), model=SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_without_a_checker_names_those_that_have_one(tmp_path: Path) -> None:
    spec = replace(composed(), task=Task(name="gsm8k", path="nowhere"))
    with pytest.raises(UserError, match=r"task=gsm8k has no exact step checker.*tinymath"):
        build_pairs(spec, tmp_path)


@pytest.mark.parametrize("word", ["n=0", "temperature=0", "top_p=1.5", "limit=0", "max_tokens=0"])
def test_settings_that_cannot_be_meant(word: str) -> None:
    with pytest.raises(UserError, match=word.partition("=")[0]):
        composed(word)
