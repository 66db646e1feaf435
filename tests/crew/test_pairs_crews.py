"""`stepdpo pairs` with two workers, processes or a local Ray's, started and ended by the real command line."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import psutil
import pytest
from support.commands import Done, ended, start, stepdpo, until
from support.pairs_runs import PROBLEMS, SMALL, finished, is_whole, size

from stepdpo.core.package_data import packaged
from stepdpo.crew.processes import CHILD

pytestmark = pytest.mark.slow
TWO = ("crew.workers=2", "run=two")
CREWS = pytest.mark.parametrize("crew", ["processes", "ray"])
SAID = {"processes": "2 processes, each with 1 thread", "ray": "2 workers on Ray, 1 cores and 0 GPUs each"}
IDS = [f"tinymath-preference-{i:06d}" for i in range(PROBLEMS)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The pairs that one process makes, in their order."""
    folder = tmp_path_factory.mktemp("alone")
    done = stepdpo("pairs", *SMALL, "run=here", cwd=folder)
    assert done.code == 0, done.said
    return pairs(folder / "runs" / "here")


def pairs(folder: Path) -> list[str]:
    return (folder / "preferences.jsonl").read_text().splitlines()


def workers() -> list[psutil.Process]:
    """Processes that have begun to work for us, or may do so."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::_Worker") or CHILD in words:
            found.append(process)
    return found


def clean(done: Done) -> None:
    """Nothing but our own words, and no process left behind."""
    assert "(raylet" not in done.out
    assert "usage stat" not in done.out.lower()
    assert "Traceback" not in done.out
    assert "Loading weights" not in done.said
    until(lambda: not workers())


@pytest.fixture(autouse=True)
def _ray(crew: str) -> None:
    if crew == "ray":
        pytest.importorskip("ray")


@CREWS
@pytest.mark.exhaustive
def test_two_workers_make_the_pairs_of_one_process(crew: str, alone: list[str], tmp_path: Path) -> None:
    words = ("sampler.workers=ray",) if crew == "ray" else (f"crew={crew}",)
    done = stepdpo("pairs", *SMALL, *words, *TWO, cwd=tmp_path)
    assert done.code == 0, done.said
    assert SAID[crew] in done.out
    assert pairs(tmp_path / "runs" / "two") == alone
    is_whole(tmp_path / "runs" / "two", IDS)
    clean(done)


@CREWS
@pytest.mark.exhaustive
def test_a_worker_that_dies_is_replaced(crew: str, alone: list[str], tmp_path: Path) -> None:
    process = start("pairs", *SMALL, f"crew={crew}", *TWO, cwd=tmp_path)
    until(lambda: size(tmp_path / "runs" / "two" / "finished.jsonl"), process)
    workers()[0].kill()
    done = ended(process)
    assert done.code == 0, done.said
    assert "a worker died over the problems from tinymath-preference-" in done.out
    assert pairs(tmp_path / "runs" / "two") == alone
    is_whole(tmp_path / "runs" / "two", IDS)
    clean(done)


@CREWS
@pytest.mark.exhaustive
def test_ctrl_c_ends_all_of_it_and_one_process_may_go_on(crew: str, tmp_path: Path) -> None:
    process = start("pairs", *SMALL, f"crew={crew}", *TWO, cwd=tmp_path)
    until(lambda: size(tmp_path / "runs" / "two" / "finished.jsonl"), process)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130, done.said
    assert "what is finished is kept, resume=true goes on" in done.out
    clean(done)
    assert 0 < len(finished(tmp_path / "runs" / "two")) < PROBLEMS
    done = stepdpo("pairs", *SMALL, "run=two", "crew=here", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    is_whole(tmp_path / "runs" / "two", IDS)


@CREWS
@pytest.mark.exhaustive
def test_what_cannot_be_is_said_and_nothing_is_left(crew: str, tmp_path: Path) -> None:
    if crew == "ray":
        done = stepdpo("pairs", "limit=4", "crew=ray", *TWO, "crew.gpus=100", cwd=tmp_path)
        assert done.code == 2
        assert "crew.workers: 2 workers with 1 cores and 100 GPUs each do not fit" in done.err
    # A model of whose weights nothing is known until a worker loads them.
    shutil.copytree(packaged("pkg://tinymath/model"), tmp_path / "spoilt")
    weights = tmp_path / "spoilt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = stepdpo("pairs", "limit=4", f"crew={crew}", *TWO, "model=./spoilt", cwd=tmp_path)
    assert done.code == 2, done.said
    assert "spoilt" in done.err
    assert "Traceback" not in done.said
    assert not (tmp_path / "runs" / "two").exists()
    until(lambda: not workers())
