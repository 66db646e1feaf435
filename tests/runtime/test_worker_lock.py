"""A run folder is held by every process of the run, and a worker ends with its command."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.runtime import run_lock
from stepdpo.runtime.run_lock import command_id, is_held_by, lock
from stepdpo.runtime.worker_lock import WORKERS, Worker, alive, register, unaccounted

WORK = """
import sys, time
from pathlib import Path
from stepdpo.runtime.run_lock import is_held_by
from stepdpo.runtime.worker_lock import register
folder, command = Path(sys.argv[1]), sys.argv[2]
leave = register(folder, 3, lambda: not command or is_held_by(folder, command))
print("works", flush=True)
if sys.stdin.readline() == "leave\\n":
    leave()
    print("left", flush=True)
time.sleep(60)
"""


def start_worker(folder: Path, command: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WORK, str(folder), command]
    worker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "works\n"
    return worker


def test_a_worker_that_lives_on_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE", 0.2)
    with start_worker(tmp_path, "") as worker:
        assert alive(tmp_path)
        told = rf"of a command that has ended, rank 3 \(pid {worker.pid} on {socket.gethostname()}\) still works there"
        with pytest.raises(UserError, match=told), lock(tmp_path):
            pass
        worker.kill()
    assert not alive(tmp_path)
    with lock(tmp_path):
        assert not unaccounted(tmp_path)  # the next command's list begins empty


def test_a_worker_ends_with_its_command_and_the_next_waits_for_it(tmp_path: Path) -> None:
    with lock(tmp_path):
        command = command_id(tmp_path)
        worker = start_worker(tmp_path, command)
    assert not is_held_by(tmp_path, command)
    with worker, lock(tmp_path):
        assert command_id(tmp_path) != command
        assert not alive(tmp_path)
        assert worker.wait() == -15  # SIGTERM, which a training answers with a checkpoint


def test_of_a_command_on_another_machine_its_word_is_believed(tmp_path: Path) -> None:
    (tmp_path / run_lock.LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "", "id": "a"}))
    assert is_held_by(tmp_path, "a")
    assert not is_held_by(tmp_path, "b")
    (tmp_path / run_lock.LOCK).write_text("")
    assert not is_held_by(tmp_path, "a")


def test_a_worker_that_comes_too_late_does_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has ended"):
        register(tmp_path, 0, lambda: False)
    assert not alive(tmp_path)
    assert not unaccounted(tmp_path)


def test_whoever_has_not_said_that_it_goes_is_unaccounted_for(tmp_path: Path) -> None:
    with start_worker(tmp_path, "") as worker:
        assert unaccounted(tmp_path) == [Worker(3, worker.pid, socket.gethostname())]
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("leave\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "left\n"
        assert unaccounted(tmp_path) == []
        assert alive(tmp_path)  # until it really is gone
        worker.kill()


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    good = {"rank": 1, "pid": os.getpid(), "host": "h", "left": False}
    lines = ["[1]", '{"rank": 2}', '{"rank": "x", "pid": 1, "host": "h", "left": false}', json.dumps(good), '{"ran']
    (tmp_path / WORKERS).write_text("\n".join(lines))
    assert unaccounted(tmp_path) == [Worker(1, os.getpid(), "h")]
