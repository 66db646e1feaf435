"""Words as people write them, written out in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepdpo.cli.shorthands import normalise

KNOWN = {"model": ["tinymath"], "dataset": ["jsonl", "tinymath"], "task": ["gsm8k", "math"]}


@pytest.mark.parametrize(
    ("verb", "word", "full"),
    [
        ("train", "model=./start", ["model=pretrained", "model.path='./start'"]),
        ("train", "model=tinymath", ["model=tinymath"]),
        ("train", "dataset=runs/x/y.jsonl", ["dataset=jsonl", "dataset.path='runs/x/y.jsonl'"]),
        ("train", "dataset=tinymath", ["dataset=tinymath"]),
        ("train", "dataset=nowhere", ["dataset=nowhere"]),  # is refused with the nearest option
        ("train", "dataset=jsonl,tinymath", ["dataset=jsonl,tinymath"]),  # a sweep
        ("eval", "task=gsm8k,math", ["task=gsm8k", "tasks=[gsm8k,math]"]),
        ("train", "rounds=3", ["rounds.count=3"]),
        ("train", "then_with=task.limit=5", ["then_with='task.limit=5'"]),
    ],
)  # fmt: skip
def test_in_full(verb: str, word: str, full: list[str]) -> None:
    assert normalise(verb, [word], KNOWN) == full


def test_a_file_here_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert normalise("train", ["dataset=mine.jsonl"], KNOWN) == ["dataset=jsonl", "dataset.path='mine.jsonl'"]
