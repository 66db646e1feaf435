"""Rows spoilt at random, from a seed: each is read or quarantined with its place, and none ends in a traceback."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console
from support import tiny
from support.spoilt_rows import GOOD, spoilt

from stepdpo.cli.check import check
from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference
from stepdpo.data.dataset import Dataset
from stepdpo.data.level import Instance, Step
from stepdpo.data.preference_file import from_row, to_line
from stepdpo.data.templates import NativeTemplate
from stepdpo.data.validation import write_quarantine
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.tokenization import tokenize


def file_of(random: Random, file: Path) -> int:
    """Write rows of one kind, some of them spoilt; how many there are."""
    good = random.choice(GOOD)
    rows: list[Any] = []
    for number in range(random.randint(1, 8)):
        row: Any = {**good, "id": f"{number}"} if random.random() < 0.5 else good
        for _ in range(random.choice([0, 1, 1, 2])):
            row = spoilt(random, row)
        rows.append(row)
    # An integer that Python itself will not write.
    texts = [json.dumps(row).replace('"HUGE"', "9" * 5000) for row in rows]
    if file.suffix == ".json":
        file.write_text("[" + ",\n".join(texts) + "]")
    else:
        file.write_text("\n".join(texts))
    return len(rows)


def all_of(preferences: tuple[Preference, ...], tokenizer: Any) -> None:
    """What becomes of usable rows further on."""
    for preference in preferences:
        assert from_row(json.loads(to_line(preference))) == preference
    for level in (Step(), Instance()):
        pairs = [level(preference) for preference in preferences]
        for template in (NativeTemplate(), tiny.CHAT):
            done = tokenize(pairs, template, tokenizer, Lengths())
            assert len(done.sequences) + len(done.refused) + done.dropped.total() == len(pairs)


def fuzz(seed: int, files: int, folder: Path, tokenizer: Any) -> int:
    """Rows that were gone through."""
    random, total = Random(seed), 0
    for _ in range(files):
        file = folder / random.choice(["a.jsonl", "a.json"])
        total += (count := file_of(random, file))
        dataset = Dataset(path=str(file), max_bad=1.0, heldout=random.choice([0, 1]))
        try:
            loaded = dataset.load()
        except UserError:  # of no known format, say
            continue
        assert len(loaded.preferences) + len(loaded.heldout) + len(loaded.bad) == count
        assert all(row.file == str(file) and row.line >= 1 and row.reason for row in loaded.bad)
        write_quarantine(loaded.bad, folder / "quarantine.jsonl")
        all_of(loaded.preferences, tokenizer)
        try:
            out = io.StringIO()
            check(dataset, tokenizer=tokenizer, console=Console(file=out, width=100), out_json=folder / "out.json")
        except UserError:
            pass
        assert "\x1b" not in out.getvalue()
    return total


def test_no_spoilt_row_ends_in_a_traceback(tmp_path: Path, tokenizer: Any) -> None:
    assert fuzz(1, 120, tmp_path, tokenizer) > 400


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(3, 6))])
def test_nor_do_thousands(seed: int, tmp_path: Path, tokenizer: Any) -> None:
    assert fuzz(seed, 700, tmp_path, tokenizer) > 2500
