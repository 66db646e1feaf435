"""Online rounds through the real command line, with the miniature: whole, killed, taken up again, added to, refused."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from support.commands import start, stepdpo, tree, until

from stepdpo.runtime.run_lock import LOCKS

WORDS = (
    "train", "rounds=2", "rounds.problems=8", "rounds.pairs_with=n=3 live=2 max_tokens=160", "then=[tinymath]",
    "then_with=task.limit=6", "engine=local", "batch.pairs=4", "save_every=0", "dataset.heldout=2",
)  # fmt: skip


def lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def problems(pairs: Path) -> set[str]:
    return {json.loads(line)["problem"] for line in (pairs / "finished.jsonl").read_text().splitlines()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of `runs/whole`: two rounds."""
    root = tmp_path_factory.mktemp("rounds")
    done = stepdpo(*WORDS, "run=whole", cwd=root)
    assert done.code == 0, done.said
    assert "| 2 | 8 |" in done.out
    return root


@pytest.mark.slow
def test_what_rounds_leave(whole: Path) -> None:
    run = whole / "runs" / "whole"
    assert {"model", "eval", "rounds.json", "rounds.md", "round-1", "round-2", "report.md"} <= tree(run)
    rows = json.loads((run / "rounds.json").read_text())["rows"]
    assert [(row["round"], row["n"], row["problems"]) for row in rows] == [(0, 6, None), (1, 6, 8), (2, 6, 8)]
    pairs = [run / f"round-{number}" / "pairs" for number in (1, 2)]
    assert not problems(pairs[0]) & problems(pairs[1])
    for row, folder in zip(rows[1:], pairs, strict=True):
        assert row["pairs"] == len(lines(folder / "preferences.jsonl")) > 2
    first, second = (
        json.loads((run / f"round-{number}" / "train" / "metrics.jsonl").read_text().splitlines()[0])
        for number in (1, 2)
    )
    assert first["heldout/loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert second["heldout/loss"] != pytest.approx(0.6931472, abs=1e-4)  # the SFT model is still the reference
    last = run / "round-2" / "train" / "model" / "model.safetensors"
    assert (run / "model" / "model.safetensors").read_bytes() == last.read_bytes()
    done = stepdpo("eval", "run=whole", "task.limit=2", "force=true", cwd=whole)
    assert done.code == 0, done.said


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_and_taken_up_again(whole: Path, tmp_path: Path) -> None:
    """In the second round's pairs: the first round is left alone, and the result is that of the run left in peace."""
    run, theirs = tmp_path / "runs" / "x", whole / "runs" / "whole"
    process = start(*WORDS, "run=x", cwd=tmp_path)
    journal = run / "round-2" / "pairs" / "finished.jsonl"
    until(lambda: journal.is_file() and journal.read_text().count("\n") >= 2, process)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(below, timeout=60)
    first = {path: path.stat().st_mtime_ns for path in (run / "round-1").rglob("*") if path.name not in LOCKS}
    finished = problems(journal.parent)
    done = stepdpo("train", "run=x", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"8 problems, {len(finished)} of them finished before" in done.out or len(finished) == 8
    assert first == {path: path.stat().st_mtime_ns for path in (run / "round-1").rglob("*") if path.name not in LOCKS}
    for name in ("round-1/pairs/preferences.jsonl", "round-2/pairs/preferences.jsonl"):
        assert lines(run / name) == lines(theirs / name)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, theirs)]
    assert weights[0] == weights[1]
    again = stepdpo("train", "run=x", "resume=true", "rounds=3", "rounds.reference=previous", cwd=tmp_path)
    assert again.code == 2
    assert "the run was started with rounds.reference=sft, not previous" in again.err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_third_round_and_one_that_cannot_be(whole: Path, tmp_path: Path) -> None:
    """Tinymath never ends, so the fourth round is made fruitless: answers too short to be whole."""
    words = ("train", "run=whole", "resume=true")
    done = stepdpo(*words, "rounds=3", "rounds.problems=4", cwd=whole)
    assert done.code == 0, done.said
    run = whole / "runs" / "whole"
    rows = json.loads((run / "rounds.json").read_text())["rows"]
    assert [row["problems"] for row in rows] == [None, 8, 8, 4]
    done = stepdpo(*words, "rounds=4", "rounds.pairs_with=max_tokens=4", cwd=whole)
    assert done.code == 2, done.said
    assert "round 4 did not come about, runs/whole/model is that of round 3: no pair came of it" in done.err
    assert (run / "model" / "config.json").is_file()
    assert not (run / "round-4" / "train").exists()


def test_words_are_checked_before_anything_starts(tmp_path: Path) -> None:
    for words, said in (
        (("rounds=2", "pairs=sibling"), "pairs=sibling: there is no such pairs; did you mean 'siblings'?"),
        (("rounds=2", "pairs.resample=3"), 'rounds.pairs_with="pairs.resample=3"'),
        (("rounds.cuont=2",), "rounds.cuont: there is no such setting; did you mean 'rounds.count'?"),
    ):
        done = stepdpo("train", *words, "run=x", cwd=tmp_path)
        assert (done.code, said in done.err) == (2, True), done.said
        assert "Traceback" not in done.err
    assert tree(tmp_path) <= {"runs"}


def test_help_teaches_rounds(tmp_path: Path) -> None:
    out = stepdpo("train", "--help", cwd=tmp_path).out
    assert "stepdpo train rounds=3" in out
    assert "  pairs_with: " in out
