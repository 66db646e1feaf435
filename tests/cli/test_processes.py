"""The command that starts the workers, and what is said of workers that left no word."""

from __future__ import annotations

import base64
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli import processes
from stepdpo.core.errors import UserError


def test_one_process_needs_no_launcher() -> None:
    assert processes._command(["x"], {"processes": 1}, {}) == [sys.executable, "-m", "x"]
    assert processes._command(["x"], {}, {}) == [sys.executable, "-m", "x"]


def world(command: list[str]) -> Any:
    word = next(word for word in command if word.startswith("--world_info="))
    return json.loads(base64.urlsafe_b64decode(word.partition("=")[2]))


def test_several_run_under_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    command = processes._command(["x", "y"], {"processes": 3, "master_port": 29511}, {})
    assert command[1:3] == ["-m", "deepspeed.launcher.launch"]
    assert "--master_port=29511" in command
    assert command[-3:] == ["--module", "x", "y"]
    assert world(command) == {"localhost": [0, 1, 2]}
    monkeypatch.setattr(processes, "gpus", lambda: tuple("01234567"))
    assert processes.count({"processes": 0}) == 8
    assert processes.count({"processes": 0, "device": "cpu"}) == 1
    assert processes.count({"processes": 2}) == 2
    assert processes.count({}) == 1


def test_hostfiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    engine = {"processes": 0, "hostfile": str(hosts)}
    with pytest.raises(UserError, match="cannot be read"):
        processes._command(["x"], engine, {})
    for text, what in (("", "names no host"), ("a\n", "expected `host slots=8`"), ("a slots=x\n", "expected")):
        hosts.write_text(text)
        with pytest.raises(UserError, match=what):
            processes._command(["x"], engine, {})
    hosts.write_text("# this machine\nlocalhost slots=2  # two\n")
    command = processes._command(["x"], engine, {})
    assert command[2] == "deepspeed.launcher.launch"
    assert world(command) == {"localhost": [0, 1]}
    hosts.write_text("one slots=8\ntwo slots=8\n")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="pdsh, which is not installed"):
        processes._command(["x"], engine, {})
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/pdsh")
    assert processes._command(["x"], engine, {})[0] == "pdsh"


@pytest.mark.parametrize(
    ("code", "passed", "exit_code", "said"),
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
def test_without_a_word(code: int, passed: list[int], exit_code: int, said: str, tmp_path: Path) -> None:
    result = processes._without_a_word(code, passed, tmp_path)
    assert result.code == exit_code
    assert said in result.message
    assert result.signal == (passed[0] if passed else 0)
