"""`stepdpo eval` killed with -9 at any moment and resumed: nothing is lost, asked twice or in another order."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.commands import ended, start, stepdpo, until
from support.pairs_runs import kill, size

pytestmark = pytest.mark.slow
PROBLEMS, KILLS = 24, 5
SMALL = ("eval", f"task.count={PROBLEMS}", "model=tinymath", "live=4", "decode.max_tokens=200")
DECODERS = {
    "greedy": (),
    "vote": ("decode=vote", "decode.n=3"),
    "step_beam": ("decode=step_beam", "decode.beams=2", "decode.expand=2", "scorer=logprob"),
}
FOLDERS = {"greedy": "tinymath", "vote": "tinymath-vote", "step_beam": "tinymath-step_beam-logprob"}


def finished(log: Path) -> list[str]:
    """Ids of the problems whose lines are whole."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [json.loads(line)["problem"] for line in lines[1:]]


@pytest.mark.parametrize(
    ("decoder", "kills"),
    [
        pytest.param("greedy", 1, id="greedy-once"),
        *(pytest.param(name, KILLS, id=name, marks=pytest.mark.exhaustive) for name in DECODERS),
    ],
)
def test_killed_and_resumed(decoder: str, kills: int, tmp_path: Path) -> None:
    """The moments are random shares of the bytes of all attempts, so that no clock has a say in them."""
    command = (*SMALL, *DECODERS[decoder])
    done = stepdpo(*command, "run=unbroken", cwd=tmp_path)
    assert done.code == 0, done.said
    whole, folder = (tmp_path / "runs" / run / "eval" / FOLDERS[decoder] for run in ("unbroken", "broken"))
    ids = [row["problem_id"] for row in rows(whole)]
    assert len(set(ids)) == PROBLEMS
    log, rng = folder / "attempts.partial.jsonl", Random(decoder)
    moments = sorted(rng.uniform(0.02, 0.9) * size(whole / "attempts.jsonl") for _ in range(kills))
    kept: list[str] = []
    for number, moment in enumerate(moments):
        process = start(*command, "run=broken", *(["resume=true"] if number else []), cwd=tmp_path)
        until(lambda moment=moment: size(log) > moment, process, every=0.0005)
        kill(process.pid)
        ended(process)
        assert not (folder / "summary.json").exists()
        there = finished(log)
        assert there[: len(kept)] == kept, "what was finished is gone on with, not written again"
        assert len(set(there)) == len(there)
        kept = there
    assert 0 < len(kept) < PROBLEMS
    done = stepdpo(*command, "run=broken", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"{len(kept)} of {PROBLEMS} problems were answered before" in done.out
    assert not log.exists()
    if decoder == "step_beam":  # a score's last digit may tell which problems shared a batch; nothing else may
        assert [without_scores(row) for row in rows(folder)] == [without_scores(row) for row in rows(whole)]
        assert scores(folder) == pytest.approx(scores(whole), abs=1e-4)
    else:
        assert (folder / "attempts.jsonl").read_bytes() == (whole / "attempts.jsonl").read_bytes()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def scores(folder: Path) -> list[float]:
    return [one["score"] for row in rows(folder) for one in row["samples"]]


def without_scores(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "samples": [{**one, "score": None} for one in row["samples"]]}


@pytest.mark.exhaustive
def test_told_to_stop_and_resumed(tmp_path: Path) -> None:
    process = start(*SMALL, "run=x", cwd=tmp_path)
    log = tmp_path / "runs" / "x" / "eval" / "tinymath" / "attempts.partial.jsonl"
    until(lambda: finished(log), process)
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; what is finished is kept, resume=true goes on" in done.out
    assert "Traceback" not in done.out
    without = stepdpo(*SMALL, "run=x", cwd=tmp_path)
    assert (without.code, "resume=true goes on with it" in without.err) == (2, True)
    before = len(finished(log))
    assert 0 < before < PROBLEMS
    done = stepdpo(*SMALL, "run=x", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"{before} of {PROBLEMS} problems were answered before" in done.out
    again = stepdpo(*SMALL, "run=x", "resume=true", cwd=tmp_path)
    assert (again.code, "has finished: nothing to resume" in again.out) == (0, True)
