"""The same commands write the same bytes whatever they are not told: hash seed, locale, time zone, folder, listings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import environment, stepdpo

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(1200)]
REVERSED = """
import os
listed, scanned = os.listdir, os.scandir

class Entries:
    def __init__(self, *place):
        with scanned(*place) as found:
            self.left = iter(sorted(found, key=lambda entry: entry.name, reverse=True))
    def __iter__(self): return self.left
    def __next__(self): return next(self.left)
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def close(self): pass

os.listdir = lambda *place: sorted(listed(*place), reverse=True)
os.scandir = Entries
"""
"""A sitecustomize.py: every listing of a folder is in reverse order."""
COMMANDS = (
    ("pairs", "limit=8", "n=3", "live=8", "max_tokens=160", "seed=1", "run=p"),
    ("train", "dataset=runs/p", "adapter=lora", "batch.pairs=4", "engine=local", "save_every=2", "run=t"),
    ("eval", "run=t", "task.limit=8"),
    ("eval", "model=tinymath", "task.limit=8", "run=base"),
    ("report", "t", "base", "--out", "report"),
    ("check", "runs/p", "--task", "tinymath", "--json", "check.json"),
)
CLOCKED = {"seconds", "tokens_per_second", "pairs_per_second"}
"""Keys of files that tell the time."""
OF_THIS_RUN = ("manifest.json", "MANIFEST.json", ".lock", ".workers")
"""Who ran it, when, and hashes of files that tell the time."""


def written(place: Path, **variables: str) -> dict[str, Any]:
    """What all commands leave in a folder, without the clock."""
    place.mkdir(parents=True)
    caches = {"STEPDPO_HOME": str(place / "caches")}
    for words in COMMANDS:
        done = stepdpo(*words, cwd=place, **caches, **variables)
        assert done.code == 0, done.said
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name not in OF_THIS_RUN)
    names = {path: path.relative_to(place).as_posix() for path in files}
    # Entries about weights are filed under the place of those.
    return {name: content(path) for path, name in names.items() if not name.startswith("caches/weights/")}


def content(path: Path) -> Any:
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    whole = [text] if path.suffix == ".json" else text.splitlines()
    # Compared as text, so that the order of keys counts.
    return [json.dumps(json.loads(one, object_pairs_hook=timeless)) for one in whole]


def timeless(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key not in CLOCKED}


def test_what_is_not_said_has_no_say(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(REVERSED)
    other = {
        "PYTHONHASHSEED": "77", "TZ": "Pacific/Kiritimati", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0", "COLUMNS": "43", "PYTHONPATH": f"{site}:{environment()['PYTHONPATH']}",
    }  # fmt: skip
    first = written(tmp_path / "here", PYTHONHASHSEED="1", TZ="UTC", LANG="C.UTF-8")
    again = written(tmp_path / "wo anders" / "größer", **other)
    assert first.keys() == again.keys()
    assert [name for name, one in first.items() if one != again[name]] == []
