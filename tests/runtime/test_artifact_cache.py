"""Entries are whole or absent, and named by what they were made from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepdpo.runtime import artifact_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


def test_an_entry_is_named_by_all_of_its_key(home: Path) -> None:
    one = artifact_cache.entry("tokens", {"a": 1, "b": "x"})
    assert one.parent == home / "tokens"
    assert one == artifact_cache.entry("tokens", {"b": "x", "a": 1})
    others = [{"a": 1}, {"a": 2, "b": "x"}, {"a": "1", "b": "x"}, {"a": 1, "b": "y"}]
    assert len({one, *(artifact_cache.entry("tokens", key) for key in others)}) == 5


def test_it_appears_when_it_is_whole() -> None:
    key = {"a": 1}
    final = artifact_cache.entry("tokens", key)
    with artifact_cache.building(final, key) as folder:
        (folder / "data").write_text("here")
        assert not final.exists()
    assert (final / "data").read_text() == "here"
    assert json.loads((final / artifact_cache.KEY).read_text()) == key
    assert [path.name for path in final.parent.iterdir()] == [final.name]


def test_a_failure_leaves_nothing() -> None:
    final = artifact_cache.entry("tokens", {})

    def fail() -> None:
        with artifact_cache.building(final, {}) as folder:
            (folder / "data").write_text("half")
            raise RuntimeError("the disc is full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert not list(final.parent.iterdir())


def test_the_first_of_two_stays() -> None:
    final = artifact_cache.entry("tokens", {})
    with artifact_cache.building(final, {}) as slow:
        (slow / "data").write_text("second")
        with artifact_cache.building(final, {}) as fast:
            (fast / "data").write_text("first")
    assert (final / "data").read_text() == "first"
    assert len(list(final.parent.iterdir())) == 1


def test_discarded_entries_are_gone() -> None:
    final = artifact_cache.entry("tokens", {})
    with artifact_cache.building(final, {}):
        pass
    artifact_cache.discard(final)
    artifact_cache.discard(final)
    assert not list(final.parent.iterdir())


WRITER = """
import sys, time
from stepdpo.runtime import artifact_cache
final = artifact_cache.entry("tokens", {})
with artifact_cache.building(final, {}) as folder:
    (folder / "data").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_goes_and_a_living_ones_stays() -> None:
    """The entry that is whole stays as well."""
    whole = artifact_cache.entry("tokens", {"whole": True})
    with artifact_cache.building(whole, {}):
        pass
    writers = [subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == b"writing\n"
        artifact_cache.tidy()
        assert len(list(whole.parent.glob(".*.tmp/data"))) == 2
        writers[0].kill()
        writers[0].wait()
        artifact_cache.tidy()
        assert len(list(whole.parent.glob(".*.tmp/data"))) == 1
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    artifact_cache.tidy()
    assert list(whole.parent.iterdir()) == [whole]


def test_what_many_hold_stays_until_the_last_is_gone() -> None:
    scratch = artifact_cache.scratch_of(artifact_cache.entry("reference", {}))
    with artifact_cache.held(scratch):
        handle = os.open(scratch, os.O_RDONLY)
        with artifact_cache.held(scratch):
            (scratch / "scores").write_text("half")
            artifact_cache.tidy()
            assert (scratch / "scores").exists()
        os.close(handle)
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("name", "left_after", "content"),
    [
        (".a1.elsewhere.example.org.b2.tmp", 7 * 24 * 3600, True),  # another machine's: nobody sees whether it lives
        (".a1.b2.tmp", 7 * 24 * 3600, True),  # of earlier versions, which say not whose
        (".a1.HERE.b2.tmp", 3600, False),  # made this instant, perhaps, and not yet held
    ],
)
def test_what_may_be_somebodys_stays_for_a_while(home: Path, name: str, left_after: float, content: bool) -> None:
    here = artifact_cache.scratch_of(Path("a1"), token="b2").name
    scratch = home / "tokens" / (here if "HERE" in name else name)
    scratch.mkdir(parents=True)
    for age, stays in ((left_after - 60, True), (left_after + 60, False)):
        if content:
            (scratch / "data").write_text("half")
        for path in (*scratch.iterdir(), scratch):
            os.utime(path, (time.time() - age,) * 2)
        artifact_cache.tidy()
        assert scratch.exists() == stays


def test_half_a_file_goes_after_an_hour(home: Path) -> None:
    files = [home / "weights" / f".{name}.json.b2.tmp" for name in ("new", "old")]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_text("{")
    os.utime(files[1], (time.time() - 3700,) * 2)
    artifact_cache.tidy()
    assert list(files[0].parent.iterdir()) == files[:1]


def test_without_a_setting_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(artifact_cache.HOME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert artifact_cache.root() == tmp_path / "stepdpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert artifact_cache.root() == tmp_path / "me" / ".cache" / "stepdpo"
