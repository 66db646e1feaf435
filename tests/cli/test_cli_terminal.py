"""A bar on a terminal; the plain lines elsewhere are among the tests of runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=1", "log_every=1", "save_every=0", "template=alpaca", "engine=local", "run=x",
    ]  # fmt: skip


def on_a_terminal(*words: str, cwd: Path, **more: str) -> tuple[int, str]:
    """The exit code, and everything that was drawn."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stepdpo", *words], cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="160", **more), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.close(ours)
    return process.wait(), drawn.decode(errors="replace")


@pytest.mark.slow
def test_a_bar(words: list[str], tmp_path: Path) -> None:
    code, drawn = on_a_terminal(*words, cwd=tmp_path)
    assert code == 0, drawn
    assert "\x1b[" in drawn
    assert "━" in drawn
    assert "3/3" in drawn
    assert "held-out after 3" in drawn
    assert "update 1/3" not in drawn


@pytest.mark.slow
@pytest.mark.exhaustive
def test_no_color(words: list[str], tmp_path: Path) -> None:
    code, drawn = on_a_terminal(*words, cwd=tmp_path, NO_COLOR="1")
    assert code == 0, drawn
    assert "3/3" in drawn
    assert "\x1b[38;" not in drawn
    assert "\x1b[3" not in drawn.replace("\x1b[3m", "")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_bar_of_problems(tmp_path: Path) -> None:
    """Figures beside it, and of a resumed run the problems that were finished before."""
    command = ["pairs", "limit=6", "live=3", "n=2", "max_tokens=160", "seed=1", "run=x"]
    code, drawn = on_a_terminal(*command, cwd=tmp_path)
    assert code == 0, drawn
    assert "━" in drawn
    assert all(words in drawn for words in ("6/6", "problems/s", "pairs", "% right", "tokens/s", "eta 0:0"))
    folder = tmp_path / "runs" / "x"
    (folder / "summary.json").unlink()
    (folder / "preferences.jsonl").rename(folder / "preferences.partial.jsonl")
    lines = (folder / "finished.jsonl").read_text().splitlines(keepends=True)
    (folder / "finished.jsonl").write_text("".join(lines[:4]))
    code, drawn = on_a_terminal(*command, "resume=true", cwd=tmp_path)
    assert code == 0, drawn
    assert "6 problems, 4 of them finished before" in drawn
    assert "6/6" in drawn
    assert "3/6" not in drawn
