"""Runs of `stepdpo pairs`, unbroken and broken, and what must hold of their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PROBLEMS = 20
SMALL = (f"limit={PROBLEMS}", "n=3", "live=3", "max_tokens=200", "seed=1")
"""Seven groups of problems of the shipped model: results come in many small pieces."""


def rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file whose last line is whole."""
    text = path.read_text()
    assert text == "" or text.endswith("\n"), f"{path.name} ends in a torn line"
    return [json.loads(line) for line in text.splitlines()]


def size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def finished(folder: Path) -> list[str]:
    """Ids of the finished problems, once for every line."""
    return sorted(row["problem"] for row in rows(folder / "finished.jsonl"))


def is_whole(folder: Path, ids: Sequence[str]) -> None:
    """Every problem is finished once, no pair is there twice, and the files have their final names."""
    assert finished(folder) == sorted(ids)
    lines = (folder / "preferences.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == sum(row["pairs"] for row in rows(folder / "finished.jsonl"))
    assert {row["meta"]["problem"] for row in rows(folder / "preferences.jsonl")} <= set(ids)
    assert (folder / "summary.json").is_file()
    assert not list(folder.glob("*.partial.*"))
    if (folder / "trees.jsonl").exists():
        trees = [row["problem"] for row in rows(folder / "trees.jsonl")]
        assert len(trees) == len(set(trees))


def results(folder: Path) -> dict[str, bytes]:
    """What came of a run, file by file; its log beside them tells of seconds."""
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl") if path.name != "finished.jsonl"}


def kill(pid: int) -> None:
    """`kill -9` of a command and of everything it has started, the workers first."""
    top = psutil.Process(pid)
    for process in [*top.children(recursive=True), top]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
