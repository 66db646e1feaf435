"""What other machines are told: the command, the environment, the signals."""

from __future__ import annotations

import base64
import json
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from stepdpo.cli import multinode
from stepdpo.core.errors import UserError


@pytest.fixture(autouse=True)
def _pdsh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/pdsh")


def words_there(command: list[str]) -> list[str]:
    """What the shell of the other machine makes of it, %n filled in as pdsh does."""
    return shlex.split(command[-1].replace("%%", "\0").replace("%n", "1").replace("\0", "%"))


def test_every_host_gets_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b 100%n"
    folder.mkdir()
    monkeypatch.chdir(folder)
    environment = {"OMP_NUM_THREADS": "2", "NCCL_DEBUG": "it's", "HOME": "/root", "HF_TOKEN": "x", "WANDB_API_KEY": "y"}
    command = multinode.command(["x", "runs/a b"], {"one": 8, "two": 2}, "hosts", 29500, environment)
    assert command[:-1] == ["pdsh", "-S", "-f", "2", "-w", "one,two"]
    there = words_there(command)
    assert there[:6] == ["cd", str(folder), "&&", "exec", "env", "NCCL_DEBUG=it's"]
    assert there[6:11] == ["OMP_NUM_THREADS=2", sys.executable, "-u", "-m", "deepspeed.launcher.launch"]
    world = next(word for word in there if word.startswith("--world_info=")).partition("=")[2]
    assert json.loads(base64.urlsafe_b64decode(world)) == {"one": list(range(8)), "two": [0, 1]}
    assert there[-8:] == [
        "--node_rank=1", "--master_addr=one", "--master_port=29500", "--no_local_rank", "-q", "--module", "x",
        "runs/a b",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "goes"), [
    ("PYTHONPATH", True), ("STEPDPO_HOME", True), ("HF_HOME", True), ("GLOO_SOCKET_IFNAME", True), ("PATH", False),
    ("HF_TOKEN", False), ("WANDB_API_KEY", False), ("RANK", False), ("CUDA_VISIBLE_DEVICES", False),
])  # fmt: skip
def test_what_goes_along(name: str, goes: bool) -> None:
    assert multinode.exported(name) == goes


def test_the_first_host_must_be_known_to_the_others() -> None:
    with pytest.raises(UserError, match="name this machine as the others know it, not localhost"):
        multinode.command(["x"], {"localhost": 8, "two": 8}, "hosts", 1, {})
    assert multinode.command(["x"], {"127.0.0.1": 1, "127.0.0.2": 1}, "hosts", 1, {})


def test_a_host_without_a_slot(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("one slots=8\ntwo slots=0\n")
    with pytest.raises(UserError, match="no slot"):
        multinode.read_hosts(tmp_path / "hosts")


def test_signals_come_by_file(tmp_path: Path) -> None:
    """Each once, in order, also those written before anyone listened."""
    heard: list[int] = []
    both = threading.Event()

    def note(signum: int, _: object) -> None:
        heard.append(signum)
        if len(heard) == 2:
            both.set()

    before = {s: signal.signal(s, note) for s in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        multinode.send(tmp_path / "s", signal.SIGUSR1)
        multinode.listen(tmp_path / "s")
        while not heard:
            time.sleep(0.02)
        multinode.send(tmp_path / "s", signal.SIGUSR2)
        assert both.wait(60)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert heard == [signal.SIGUSR1, signal.SIGUSR2]
