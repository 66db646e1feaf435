"""Two runs in one folder: the second is refused, a dead one's lock is taken over."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.runtime.run_lock import LOCK, holder, lock

HOLD = """
import sys, time
from pathlib import Path
from stepdpo.runtime.run_lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_second_is_refused_with_pid_and_host_and_a_killed_holder_is_stale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start_holder(tmp_path) as other:
        message = rf"in use by pid {other.pid} on {os.uname().nodename} since 20"
        with pytest.raises(UserError, match=message), lock(tmp_path):
            pass
        found = holder(tmp_path)
        assert found is not None
        assert found["pid"] == other.pid
        other.kill()
    assert holder(tmp_path) is None
    with caplog.at_level(logging.WARNING), lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert f"stale lock of pid {other.pid}" in caplog.text


def test_released_lock_is_free_and_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with lock(tmp_path):
            assert holder(tmp_path) is not None
        assert holder(tmp_path) is None
    assert not caplog.text


def test_released_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path):
        raise RuntimeError
    assert holder(tmp_path) is None


def test_same_process_twice(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(UserError, match="in use"), lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "garbage", "[1]", "\x00"])
def test_odd_lock_files(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with lock(tmp_path):
        pass
    assert holder(tmp_path) is None


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), lock(tmp_path / "file"):
        pass
