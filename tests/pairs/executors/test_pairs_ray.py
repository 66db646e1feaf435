"""`stepdpo pairs crew=ray`: a local Ray with two workers, started and ended by the real command line."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from support.commands import Done, ended, start, stepdpo, until
from support.pairs_runs import PROBLEMS, SMALL, finished, is_whole, size

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
RAY = ("crew.workers=2", "run=ray")
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
    """Those processes of a Ray that have begun to work for us."""
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::_Worker")]


def clean(done: Done) -> None:
    """Nothing but our own words, and no process left behind."""
    assert "(raylet" not in done.out
    assert "usage stat" not in done.out.lower()
    assert "Traceback" not in done.out
    until(lambda: not workers())


def test_two_workers_make_the_pairs_of_one_process(alone: list[str], tmp_path: Path) -> None:
    done = stepdpo("pairs", *SMALL, "sampler.workers=ray", *RAY, cwd=tmp_path)
    assert done.code == 0, done.said
    assert "2 workers on Ray" in done.out
    assert pairs(tmp_path / "runs" / "ray") == alone
    is_whole(tmp_path / "runs" / "ray", IDS)
    clean(done)


@pytest.mark.exhaustive
def test_a_worker_that_dies_is_replaced(alone: list[str], tmp_path: Path) -> None:
    process = start("pairs", *SMALL, "crew=ray", *RAY, cwd=tmp_path)
    until(lambda: size(tmp_path / "runs" / "ray" / "finished.jsonl"), process)
    workers()[0].kill()
    done = ended(process)
    assert done.code == 0, done.said
    assert "a worker died over the problems from tinymath-preference-" in done.out
    assert pairs(tmp_path / "runs" / "ray") == alone
    is_whole(tmp_path / "runs" / "ray", IDS)
    clean(done)


@pytest.mark.exhaustive
def test_ctrl_c_ends_all_of_it_and_one_process_may_go_on(tmp_path: Path) -> None:
    process = start("pairs", *SMALL, "crew=ray", *RAY, cwd=tmp_path)
    until(lambda: size(tmp_path / "runs" / "ray" / "finished.jsonl"), process)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130, done.said
    assert "what is finished is kept, resume=true goes on" in done.out
    clean(done)
    assert 0 < len(finished(tmp_path / "runs" / "ray")) < PROBLEMS
    done = stepdpo("pairs", *SMALL, "run=ray", "crew=here", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    is_whole(tmp_path / "runs" / "ray", IDS)


@pytest.mark.exhaustive
def test_what_cannot_be_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    done = stepdpo("pairs", "limit=4", "crew=ray", *RAY, "crew.gpus=100", cwd=tmp_path)
    assert done.code == 2
    assert "crew.workers: 2 workers with 1 cores and 100 GPUs each do not fit" in done.err
    done = stepdpo("pairs", "limit=4", "crew=ray", *RAY, "model=./nowhere", cwd=tmp_path)
    assert done.code == 2, done.said
    assert "nowhere" in done.err
    assert "Traceback" not in done.said
    assert not (tmp_path / "runs" / "ray").exists()
