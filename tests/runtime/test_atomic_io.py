"""A file is whole or absent."""

import os
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import read_json, read_jsonl, write_json, write_jsonl, write_text


def test_round_trip_with_awkward_letters(tmp_path: Path) -> None:
    rows = [{"text": "é \u2028 \x85 \n \\ \ud800"}, {"text": ""}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 2


def test_readable_non_ascii(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Schrödinger"})
    assert "Schrödinger" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"p": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a":\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:3"):
        read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="expected an object, got list"):
        read_jsonl(path)


def test_missing_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match="not readable as JSON"):
        read_json(tmp_path / "a.json")
