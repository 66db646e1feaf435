"""Entries are whole or absent, and named by what they were made from."""

from __future__ import annotations

import json
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


def test_without_a_setting_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(artifact_cache.HOME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert artifact_cache.root() == tmp_path / "stepdpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert artifact_cache.root() == tmp_path / "me" / ".cache" / "stepdpo"
