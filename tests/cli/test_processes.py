"""The command that starts the workers, and what is said of workers that left no word."""

from __future__ import annotations

import base64
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli import processes as workers
from stepdpo.core.errors import UserError


def test_one_process_needs_no_launcher() -> None:
    assert workers._command(["x"], {"processes": 1}, {}) == [sys.executable, "-m", "x"]
    assert workers._command(["x"], {}, {}) == [sys.executable, "-m", "x"]


def world(command: list[str]) -> Any:
    word = next(word for word in command if word.startswith("--world_info="))
    return json.loads(base64.urlsafe_b64decode(word.partition("=")[2]))


def test_several_run_under_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    command = workers._command(["x", "y"], {"processes": 3, "master_port": 29511}, {})
    assert command[1:3] == ["-m", "deepspeed.launcher.launch"]
    assert "--master_port=29511" in command
    assert command[-3:] == ["--module", "x", "y"]
    assert world(command) == {"localhost": [0, 1, 2]}
    monkeypatch.setattr(workers, "_gpus", lambda: 8)
    assert workers.processes({"processes": 0}) == 8
    assert workers.processes({"processes": 0, "device": "cpu"}) == 1
    assert workers.processes({"processes": 2}) == 2
    assert workers.processes({}) == 1


def test_hostfiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    engine = {"processes": 0, "hostfile": str(hosts)}
    with pytest.raises(UserError, match="cannot be read"):
        workers._command(["x"], engine, {})
    for text, what in (("", "names no host"), ("a\n", "expected `host slots=8`"), ("a slots=x\n", "expected")):
        hosts.write_text(text)
        with pytest.raises(UserError, match=what):
            workers._command(["x"], engine, {})
    hosts.write_text("# this machine\nlocalhost slots=2  # two\n")
    command = workers._command(["x"], engine, {})
    assert command[2] == "deepspeed.launcher.launch"
    assert world(command) == {"localhost": [0, 1]}
    hosts.write_text("one slots=8\ntwo slots=8\n")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="pdsh, which is not installed"):
        workers._command(["x"], engine, {})
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/pdsh")
    assert workers._command(["x"], engine, {})[0] == "pdsh"


@pytest.mark.parametrize(
    ("code", "passed", "answer", "said"),
    [
        (-9, [], 137, "killed by signal 9 (out of memory?)"),
        (256 - 9, [], 137, "killed by signal 9"),
        (-11, [], 139, "killed by signal 11"),
        (1, [], 1, "died without a word"),
        (0, [], 1, "died without a word"),
        (-2, [signal.SIGINT], 130, "stopped by SIGINT before it could save"),
        (1, [signal.SIGTERM], 143, "stopped by SIGTERM before it could save"),
    ],
)
def test_without_a_word(code: int, passed: list[int], answer: int, said: str) -> None:
    got = workers._without_a_word(code, passed)
    assert got["code"] == answer
    assert said in got["message"]
