"""`stepdpo pairs` killed and told to stop at any moment, and resumed: nothing is lost, twice or in another order."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import pytest
from support.commands import ended, start, stepdpo, until
from support.pairs_runs import PROBLEMS, SMALL, finished, is_whole, kill, rows, size

pytestmark = pytest.mark.slow
KILLS = 5
METHODS = {
    "siblings": ("pairs=siblings",),
    "sampled": ("pairs=sampled", "pairs.max_pairs_per_problem=2"),
    "localise": ("pairs=localise", "judge=rollouts", "pairs.rectify=4", "judge.rollouts=4"),
    "rollouts": ("pairs=rollouts", "pairs.rollouts=4", "pairs.max_wrong=2"),
    "controlled": ("pairs=controlled", "pairs.tries=4", "pairs.naive=true"),
    "mcts": ("pairs=mcts", "pairs.iterations=4", "pairs.root_factor=1"),
}
"""Ways of making pairs, each of which must survive being killed."""


@pytest.mark.parametrize(
    ("words", "kills"),
    [
        pytest.param(METHODS["siblings"], 2, id="siblings-twice"),
        *(pytest.param(words, KILLS, id=name, marks=pytest.mark.exhaustive) for name, words in METHODS.items()),
    ],
)
def test_killed_and_resumed(words: tuple[str, ...], kills: int, tmp_path: Path) -> None:
    """The moments are random shares of the whole result log's bytes, so that no clock has a say in them."""
    command = ("pairs", *SMALL, *words)
    done = stepdpo(*command, "run=unbroken", cwd=tmp_path)
    assert done.code == 0, done.said
    whole = tmp_path / "runs" / "unbroken"
    ids = finished(whole)
    assert len(set(ids)) == PROBLEMS
    is_whole(whole, ids)
    folder = tmp_path / "runs" / "broken"
    result_log, rng = folder / "finished.jsonl", Random(f"{words}")
    moments = sorted(rng.uniform(0.02, 0.8) * size(whole / "finished.jsonl") for _ in range(kills))
    for number, moment in enumerate(moments):
        process = start(*command, "run=broken", *(["resume=true"] if number else []), cwd=tmp_path)
        until(lambda moment=moment: size(result_log) > moment, process, every=0.0005)
        kill(process.pid)
        ended(process)
        assert not (folder / "summary.json").exists()
    done = stepdpo(*command, "run=broken", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert "finished before" in done.out
    is_whole(folder, ids)
    assert (folder / "preferences.jsonl").read_bytes() == (whole / "preferences.jsonl").read_bytes()
    if "pairs=mcts" in words:  # not to the byte: a prior's last digit may tell which problems shared a batch
        searched = [[tree["problem"] for tree in rows(run / "trees.jsonl")] for run in (folder, whole)]
        assert searched[0] == searched[1] == ids


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.exhaustive
def test_told_to_stop_and_resumed(signum: signal.Signals, tmp_path: Path) -> None:
    command = ("pairs", *SMALL, "run=x")
    folder = tmp_path / "runs" / "x"
    process = start(*command, cwd=tmp_path)
    until(lambda: size(folder / "finished.jsonl"), process)
    process.send_signal(signum)
    done = ended(process)
    assert done.code == 128 + signum
    assert f"stopped by {signum.name}; what is finished is kept, resume=true goes on" in done.out
    assert "Traceback" not in done.out
    before = len(rows(folder / "finished.jsonl"))
    assert 0 < before < PROBLEMS
    done = stepdpo(*command, "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"{PROBLEMS} problems, {before} of them finished before" in done.out
    is_whole(folder, [f"tinymath-preference-{i:06d}" for i in range(PROBLEMS)])
    again = stepdpo(*command, "resume=true", cwd=tmp_path)
    assert (again.code, "has finished: nothing to resume" in again.out) == (0, True)
