"""Real processes with workers that load nothing: what is sent, what comes back, what is left when something dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.commands import environment, until
from support.crew_parts import Doing, DoingSpec

from stepdpo.core.errors import Outage, UserError
from stepdpo.crew import processes
from stepdpo.crew.processes import ProcessesExecutor, devices_of_each

TWO = ProcessesExecutor(workers=2, threads=1)


def groups(*does: str, folder: Path = Path(), size: int = 2) -> list[list[Doing]]:
    """A task for everything to be done, `size` in a group."""
    tasks = [Doing(f"t{i}", do, folder) for i, do in enumerate(does)]
    return [tasks[at : at + size] for at in range(0, len(tasks), size)]


def below(pid: int) -> list[psutil.Process]:
    """The workers that a process has."""
    return [p for p in psutil.Process(pid).children(recursive=True) if processes.CHILD in p.cmdline()]


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gpus", lambda: ())


def test_all_results_once_by_both_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed"
    with TWO.open(DoingSpec(closed=closed)) as crew:
        results = list(crew.finish(groups("meet", "", "meet", *[""] * 37, folder=tmp_path)))
        assert crew.provenance == {"made": "by hand"}
    assert sorted(result.problem for result in results) == sorted(f"t{i}" for i in range(40))
    pids = {result.pid for result in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {result.threads for result in results} == {"1"}
    assert {int(line) for line in closed.read_text().splitlines()} == pids
    assert not below(os.getpid())
    assert "2 processes, each with 1 thread\n" in capsys.readouterr().out


def test_every_worker_sees_the_gpus_that_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gpus", lambda: ("4", "GPU-5a", "6", "7"))
    with ProcessesExecutor(threads=1).open(DoingSpec(devices=2)) as crew:
        results = list(crew.finish(groups("meet", "", "meet", folder=tmp_path)))
    assert {result.devices for result in results} == {"4,GPU-5a", "6,7"}
    assert len({result.pid for result in results}) == 2


def test_a_worker_that_dies_is_replaced_and_nothing_comes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TWO.open(DoingSpec()) as crew:
        results = list(crew.finish(groups("", "die once", "", "", "", "die once", folder=tmp_path)))
    assert sorted(result.problem for result in results) == [f"t{i}" for i in range(6)]
    said = capsys.readouterr().out
    for first in ("t0", "t4"):
        line = (
            f"warning: a worker died over the problems from {first} on; another one goes on. It was killed by signal 9"
        )
        assert said.count(line) == 1
    assert not below(os.getpid())


def test_a_group_that_kills_its_workers_ends_the_run(tmp_path: Path) -> None:
    crew_of = ProcessesExecutor(workers=2, threads=1, retries=1)
    with (
        pytest.raises(RuntimeError, match=r"2 workers died over the problems from t2 on; resume=true goes on\."),
        crew_of.open(DoingSpec()) as crew,
    ):
        list(crew.finish(groups("", "", "", "die", "", "")))
    assert not below(os.getpid())


def test_a_death_is_noticed_though_something_holds_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOOK", 0.05)
    with TWO.open(DoingSpec()) as crew:
        results = list(crew.finish(groups("", "leave", folder=tmp_path)))
    assert sorted(result.problem for result in results) == ["t0", "t1"]


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [("mend", UserError, "mend it"), ("outage", Outage, "no answer"), ("bug", ValueError, "a bug")],
)
def test_what_a_worker_raises_is_raised_here(do: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised, TWO.open(DoingSpec()) as crew:
        list(crew.finish(groups("", do, "", "")))
    cause = raised.value.__cause__
    assert (cause is None) == (do != "bug")
    assert do != "bug" or "crew_parts.py" in str(cause)  # where it was raised
    assert not below(os.getpid())


def test_an_error_that_cannot_be_sent_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"^Unsendable: not sent$"), TWO.open(DoingSpec()) as crew:
        list(crew.finish(groups("unsendable")))


def test_whatever_stops_this_process_stops_a_worker_in_the_midst_of_its_work(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with TWO.open(DoingSpec(closed=closed)) as crew:
        results = crew.finish(groups("", "wait", "", "wait", folder=tmp_path))
        next(results)
        next(results)  # of the other worker: both have a group now
        until(lambda: len(list(tmp_path.glob("waits *"))) == 2)
    assert not below(os.getpid())
    assert len(closed.read_text().splitlines()) == 2  # told to close, not killed


def test_workers_end_with_a_process_that_is_killed_outright(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from support.crew_parts import *; from stepdpo.crew.processes import *\n"
        "with ProcessesExecutor(workers=2, threads=1).open(DoingSpec()) as crew:\n"
        f"    list(crew.finish([[Doing(str(i), 'wait', Path({str(tmp_path)!r}))] for i in range(2)]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=subprocess.DEVNULL)
    until(lambda: len(list(tmp_path.glob("waits *"))) == 2, every=0.05)
    children = below(parent.pid)
    assert len(children) == 2
    parent.kill()
    parent.wait()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left


@pytest.mark.parametrize(
    ("executor", "devices", "visible", "expected"),
    [
        (ProcessesExecutor(), 1, 8, (8, 4)),  # one a GPU, 32 cores shared
        (ProcessesExecutor(), 2, 8, (4, 8)),  # a model over two GPUs each
        (ProcessesExecutor(), 3, 8, (2, 16)),  # two GPUs are left over
        (ProcessesExecutor(workers=2), 1, 8, (2, 16)),
        (ProcessesExecutor(workers=16), 1, 8, (16, 2)),
        (ProcessesExecutor(), 1, 0, (32, 1)),  # by cores
        (ProcessesExecutor(threads=4), 1, 0, (8, 4)),
        (ProcessesExecutor(threads=64), 1, 0, (1, 64)),
        (ProcessesExecutor(workers=5), 0, 8, (5, 6)),
        (ProcessesExecutor(), 0, 8, (32, 1)),  # it was told to leave the GPUs alone
        (ProcessesExecutor(), None, 8, (1, 32)),  # a server: no more requests at a time than it is to be sent
        (ProcessesExecutor(workers=3), None, 0, (3, 10)),
    ],
)
def test_how_many_workers_and_threads(
    executor: ProcessesExecutor, devices: int | None, visible: int, expected: tuple[int, int]
) -> None:
    assert executor.room(devices, visible, cores=32) == expected


def test_a_worker_that_wants_more_gpus_than_there_are() -> None:
    with pytest.raises(UserError, match="crew=processes: a worker takes 4 GPUs, and 2 are visible"):
        ProcessesExecutor().room(4, 2, 32)


def test_gpus_are_dealt_out() -> None:
    assert devices_of_each("abcd", 1, 3) == [("a",), ("b",), ("c",)]
    assert devices_of_each("abcde", 2, 3) == [("a", "b"), ("c", "d"), ("a", "b")]
    assert devices_of_each("ab", 0, 2) == [(), ()]
    assert devices_of_each("", 1, 2) == [(), ()]
