"""`stepdpo eval` by one process, by two, by two workers of Ray: the same attempts for the same seed, to the byte."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from support.commands import ended, start, stepdpo, until

from stepdpo.crew.processes import CHILD

pytestmark = pytest.mark.slow
PROBLEMS = 7
SMALL = (
    "eval",
    "model=tinymath",
    f"task.count={PROBLEMS}",
    "live=2",
    "decode=vote",
    "decode.n=2",
    "decode.max_tokens=100",
)
"""Four groups, the last one a single problem."""


def folder(cwd: Path, run: str) -> Path:
    return cwd / "runs" / run / "eval" / "tinymath-vote"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The attempts of one process."""
    cwd = tmp_path_factory.mktemp("alone")
    done = stepdpo(*SMALL, "run=one", cwd=cwd)
    assert done.code == 0, done.said
    return (folder(cwd, "one") / "attempts.jsonl").read_bytes()


@pytest.mark.parametrize("crew", ["processes", "ray"])
def test_the_same_attempts(crew: str, alone: bytes, tmp_path: Path) -> None:
    if crew == "ray":
        pytest.importorskip("ray")
    done = stepdpo(*SMALL, f"crew={crew}", "crew.workers=2", "run=two", cwd=tmp_path)
    assert done.code == 0, done.said
    assert {"processes": "2 processes, each with 1 thread", "ray": "2 workers on Ray"}[crew] in done.out
    assert alone.count(b"\n") == PROBLEMS
    assert (folder(tmp_path, "two") / "attempts.jsonl").read_bytes() == alone


@pytest.mark.exhaustive
def test_stopped_with_two_and_resumed_by_one(alone: bytes, tmp_path: Path) -> None:
    process = start(*SMALL, "crew=processes", "crew.workers=2", "run=two", cwd=tmp_path)
    log = folder(tmp_path, "two") / "attempts.partial.jsonl"
    until(lambda: log.exists() and log.read_bytes().count(b"\n") > 1, process)  # more than what it was made of
    below = psutil.Process(process.pid).children(recursive=True)
    assert len([p for p in below if CHILD in p.cmdline()]) == 2
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130, done.said
    assert "Traceback" not in done.out
    _, left = psutil.wait_procs(below, timeout=60)
    assert not left
    done = stepdpo(*SMALL, "run=two", "crew=here", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert "problems were answered before" in done.out
    assert (folder(tmp_path, "two") / "attempts.jsonl").read_bytes() == alone
