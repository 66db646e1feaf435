"""Problems stream through `stepdpo pairs`: few of them are in memory, however many there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.constructions import SMALL, TEMPLATE, composed

from stepdpo.core.errors import UserError
from stepdpo.core.types import Completion, Problem, Sampling
from stepdpo.data.tasks import Task
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.sampled import Sampled
from stepdpo.tinymath.task import TinymathTask


@dataclass(frozen=True)
class Half:
    """Is right every other time; and notes how many problems had been made when it was asked."""

    made: list[int]
    asked: list[int] = field(default_factory=list)

    @contextmanager
    def open(self, model: Any) -> Iterator[Half]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.asked.append(sum(self.made))
        texts = [f"\nStep 1: so.\nThe answer is: {i % 2}" for i in range(params.n)]
        return [[Completion(text, 5, "eos") for text in texts] for _ in prompts]


@dataclass(frozen=True)
class Endless:
    """A task that does not know how many problems it has."""

    made: list[int]
    name: str = "endless"
    split: str = ""
    limit: int | None = None
    checker: Any = None

    def stream(self) -> Iterator[Problem]:
        for number in range(30):
            self.made.append(1)
            yield Problem(f"p{number}", f"Question {number}?", ("1",))


def test_a_problem_is_made_when_it_is_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups of 4: the sampler is asked when 4, 8, 12, ... problems have been made, and no more."""
    made: list[int] = []
    sampler = Half(made)
    spec = replace(
        composed("live=4", "n=2"), model=SMALL, sampler=sampler, template=TEMPLATE, pairs=Sampled(), task=Endless(made)
    )
    counts = build_pairs(spec, tmp_path)
    assert sampler.asked == [4, 8, 12, 16, 20, 24, 28, 30]
    assert (counts["problems"], counts["pairs"]) == (30, 30)
    assert capsys.readouterr().out.startswith("endless: problems, 2 solutions each")


def test_tasks_stream_what_they_list(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"question": f"Q{i}", "answer": str(i)}) + "\n" for i in range(7)))
    for task in (
        Task("t", str(file)), Task("t", str(file), limit=3), TinymathTask(count=9), TinymathTask(count=9, limit=4),
    ):  # fmt: skip
        stream = task.stream()
        assert list(stream) == list(stream) == task.problems()
        assert len(stream) == len(task.problems())


def test_every_row_is_looked_at_before_the_first_is_used(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    good = [{"id": i, "question": "Q", "answer": "1"} for i in range(50)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*good, {"question": "Q"}]))
    with pytest.raises(UserError, match=r"1 of 51 rows(.|\n)*t\.jsonl:51: "):
        Task("t", str(file)).stream()
    file.write_text("".join(json.dumps(row) + "\n" for row in [*good, good[7]]))
    with pytest.raises(UserError, match="2 problems have the id '7'"):
        Task("t", str(file)).stream()
    with pytest.raises(ValueError, match="tinymath has none of the name 'x'"):
        TinymathTask(split="x").stream()
