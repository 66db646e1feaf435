"""The same bytes, whichever problem was finished first and however often a run stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.constructions import TEMPLATE, composed
from support.forgetful import Forgetful
from support.pairs_runs import results
from support.scripted import TOKENIZER, grade

from stepdpo.core.protocols import Tokenizer
from stepdpo.core.types import Completion, Preference, Problem, Sampling
from stepdpo.crew.local import OpenLocalExecutor
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.config import PairsConfig
from stepdpo.pairs.engine import result_order
from stepdpo.pairs.engine.requests import ProblemResult, Result
from stepdpo.pairs.engine.result_log import PREFERENCES, TREES, ResultLog
from stepdpo.pairs.engine.scheduler import Scheduler
from stepdpo.pairs.engine.worker import Worker, WorkerContext
from stepdpo.runtime.run_folder import FINISHED, QUARANTINE, SUMMARY
from stepdpo.runtime.signals import Interrupted
from stepdpo.tinymath.problems import problems

COUNT = 10
METHODS = {
    "siblings": ("pairs=siblings", "pairs.baselines=true", "pairs.extra_samples=2"),
    "sampled": ("pairs=sampled",),
    "localise": ("pairs=localise", "judge=rollouts", "pairs.rectify=4", "judge.rollouts=4"),
    "rollouts": ("pairs=rollouts", "pairs.rollouts=4"),
    "controlled": ("pairs=controlled", "pairs.naive=true", "pairs.max_right=2"),
    "mcts": ("pairs=mcts", "pairs.iterations=4", "pairs.root_factor=1"),
}


@dataclass(frozen=True)
class Unwritten:
    """A model of which only the tokenizer is asked for."""

    source: str = "none"

    def tokenizer(self) -> Tokenizer:
        return TOKENIZER


@dataclass(frozen=True)
class Here:
    """Works in this very process, graders included, which take seconds to start."""

    @contextmanager
    def open(self, given: WorkerContext) -> Iterator[OpenLocalExecutor]:
        with given.sampler.open(given.model) as sampler:
            assert given.context is not None
            yield OpenLocalExecutor(
                Worker(given.method, given.context, Scheduler(sampler, given.context.sampling, grade))
            )


@dataclass(frozen=True)
class Stopping:
    """A sampler that is stopped at a call; `calls` holds how many there were."""

    sampler: Forgetful
    at: int
    calls: list[int] = field(default_factory=list)

    @contextmanager
    def open(self, model: Any) -> Iterator[Stopping]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.calls.append(len(prompts))
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return self.sampler.sample(prompts, params, streams)


def worked(given: PairsConfig, folder: Path, live: int, stop_at: int = 0) -> Stopping:
    """`given` worked on, so many problems at a time, until a call of the sampler; what is there already is kept."""
    sampler = Stopping(Forgetful(tuple(problems("preference", COUNT))), stop_at)
    spec = replace(given, live=live, model=Unwritten(), sampler=sampler, template=TEMPLATE, crew=Here())
    try:
        build_pairs(spec, folder, resume=folder.exists())
    except Interrupted:
        assert stop_at
    return sampler


@pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)
def test_stopped_or_not_and_however_many_at_a_time(words: tuple[str, ...], tmp_path: Path) -> None:
    """Stopped twice, the second time alone, and gone on with others together: the bytes of one unbroken run."""
    given = composed(f"limit={COUNT}", "n=3", *words)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    worked(given, whole, live=COUNT)
    calls = len(worked(given, tmp_path / "by four", live=4).calls)
    worked(given, broken, live=4, stop_at=calls // 2 + 1)
    left = COUNT - len((broken / FINISHED).read_text().splitlines())
    assert 0 < left < COUNT
    worked(given, broken, live=1, stop_at=2)
    assert not (broken / SUMMARY).exists()
    worked(given, broken, live=3)
    assert results(broken) == results(tmp_path / "by four") == results(whole)
    assert not list(broken.glob(".*.ordered"))
    counts, others = (json.loads((folder / SUMMARY).read_text())["counts"] for folder in (whole, broken))
    assert counts["pairs"] > 3
    assert list(counts.items()) == list(others.items())
    order = [json.loads(line)["problem"] for line in (broken / FINISHED).read_text().splitlines()]
    assert order == [problem.id for problem in problems("preference", COUNT)]


NAMES = "abcd"
GIVEN = [Problem(name, name, ("1",)) for name in NAMES]


def finished(name: str) -> ProblemResult:
    """As many pairs as its place; the first one's judge fails."""
    if name == "a":
        return ProblemResult(name, Result(outcome="no answer"), judge_reply="Step what?", failed=True)
    made = tuple(Preference(name, "p", f"c{i}", "r") for i in range(NAMES.index(name)))
    return ProblemResult(name, Result(made, tree={"problem": name}), tokens=5)


def write(folder: Path, order: str) -> ResultLog:
    result_log = ResultLog(folder)
    assert [problem.id for problem in result_log.unfinished(GIVEN)] == list(NAMES)
    for name in order:
        result_log.add(finished(name))
    return result_log


def contents(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != FINISHED}
    lines = [json.loads(line) for line in (folder / FINISHED).read_text().splitlines()]
    return {**found, FINISHED: [{**line, "seconds": 0} for line in lines]}


class Killed(Exception):
    """What a kill is to the code that it ends: nothing after it happens."""


@pytest.mark.parametrize("moment", range(24))
def test_killed_at_any_moment_of_putting_in_order(moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write, rename and removal is a moment; after the kill none of them is carried out."""
    write(tmp_path / "whole", NAMES).finish()
    result_log = write(tmp_path / "run", "cadb")
    left = moment

    def step(real: Any) -> Any:
        def mortal(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*given, **named)

        return mortal

    with monkeypatch.context() as patched:
        patched.setattr(result_order, "_write", step(result_order._write))
        patched.setattr(Path, "replace", step(Path.replace))
        patched.setattr(Path, "unlink", step(Path.unlink))
        try:
            result_log.finish()
            assert moment > 12
        except Killed:
            pass
    again = ResultLog(tmp_path / "run")
    assert (again.done, again.failed) == ({"b", "c", "d"}, {"a": "no answer"})
    again.finish()
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_problem_that_is_tried_again_goes_to_its_place(tmp_path: Path) -> None:
    """Its rows before those of later problems, its first try in the quarantine before theirs."""
    write(tmp_path, "dcba").finish()
    assert {path.name for path in tmp_path.iterdir()} == {FINISHED, PREFERENCES, TREES, QUARANTINE}
    before = (tmp_path / PREFERENCES).read_bytes()
    again = ResultLog(tmp_path)
    assert [problem.id for problem in again.unfinished(GIVEN)] == ["a"]
    again.add(replace(finished("b"), problem="a"))
    again.finish()
    made = (tmp_path / PREFERENCES).read_bytes()
    assert made.endswith(before)
    assert len(made) > len(before)
    assert [json.loads(line)["problem"] for line in (tmp_path / FINISHED).read_text().splitlines()] == list("aabcd")
    assert again.failed == {}


def test_a_full_disc_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result_log = write(tmp_path, "dcba")
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        result_log.finish()
    assert contents(tmp_path) == before


def test_a_log_of_an_earlier_version_keeps_its_order_before_all_others(tmp_path: Path) -> None:
    write(tmp_path, "cb").close()
    lines = [json.loads(line) for line in (tmp_path / FINISHED).read_text().splitlines()]
    for line in lines:
        del line["place"]
    (tmp_path / FINISHED).write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = ResultLog(tmp_path)
    list(again.unfinished(GIVEN))
    for name in "da":
        again.add(finished(name))
    again.finish()
    assert [json.loads(line)["problem"] for line in (tmp_path / FINISHED).read_text().splitlines()] == list("cbad")
    questions = [json.loads(line)["question"] for line in (tmp_path / PREFERENCES).read_text().splitlines()]
    assert questions == list("ccbddd")
