"""Step-controlled pairs through the real command line, with the shipped miniature, and a training on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import stepdpo
from support.scripted import grade, whole

from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, WRONG
from stepdpo.data.preference_file import from_row
from stepdpo.tinymath.problems import problems

KNOWN = {problem.id: problem for problem in problems("preference", 12)}


@pytest.mark.slow
def test_pairs_are_made_and_trained_on(tmp_path: Path) -> None:
    small = ("limit=12", "n=4", "max_tokens=160", "sampler.device=cpu", "pairs.naive=true", "run=made")
    done = stepdpo("pairs", "pairs=controlled", *small, cwd=tmp_path)
    assert done.code == 0, done.said
    made = tmp_path / "runs" / "made" / "preferences.jsonl"
    pairs = [from_row(json.loads(line)) for line in made.read_text().splitlines()]
    controlled = [pair for pair in pairs if not pair.whole]
    assert 3 < len(controlled) < len(pairs)
    for pair in pairs:
        problem = KNOWN[pair.meta["problem"]]
        assert [g.verdict for g in grade([(text, problem) for text in whole(pair)])] == [CORRECT, WRONG]
    for pair in controlled:
        right, wrong = (split_steps(text)[1] for text in whole(pair))
        step = pair.meta["step"]
        assert 0 <= pair.meta["k"] < step <= len(right) - 1
        assert right[:step] == wrong[:step]
        assert right[step] != wrong[step]
        assert pair.meta["temperatures"] == [
            min(110 + 5 * i, 140) / 100 for i in range(len(wrong) - pair.meta["k"] - 1)
        ]
        assert 1 <= pair.meta["tries"] <= 8
    counts = json.loads((made.parent / "summary.json").read_text())["counts"]
    assert (counts["controlled pairs"], counts["pairs"]) == (len(controlled), len(pairs))
    level = ("level=instance", "level.prefix=prompt", "dataset.heldout=0", "dataset.max_bad=0")
    trained = stepdpo("train", f"dataset={made}", *level, "engine=local", "max_steps=1", "run=spoilt", cwd=tmp_path)
    assert trained.code == 0, trained.said
    steps = (tmp_path / "runs" / "spoilt" / "metrics.jsonl").read_text().splitlines()
    assert any(json.loads(line).get("step") == 1 for line in steps)
