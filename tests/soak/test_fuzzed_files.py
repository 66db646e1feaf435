"""Files spoilt at random, from a seed: each row is read, or quarantined with its place, or its file is refused.

Their rows as in `tests/data/test_fuzzed_rows.py`; their bytes torn, packed, or laid out as tables.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from support.spoilt_rows import GOOD, spoilt

from stepdpo.core.errors import UserError
from stepdpo.data.dataset import Dataset
from stepdpo.data.readers import read_rows
from stepdpo.data.rows import BadRow
from stepdpo.data.tasks import Task
from stepdpo.data.validation import write_quarantine

PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
PATIENCE = 20
"""Seconds of one file; only a reader that hangs takes so long."""


def texts(random: Random) -> list[str]:
    """Rows of one kind as JSON, some of them spoilt."""
    good = random.choice(GOOD)
    rows: list[Any] = []
    for _ in range(random.randint(0, 6)):
        row: Any = good
        for _ in range(random.choice([0, 0, 1, 2])):
            row = spoilt(random, row)
        rows.append(row)
    return [json.dumps(row).replace('"HUGE"', "9" * 5000) for row in rows]


def content(random: Random, kind: str) -> bytes:
    rows = texts(random)
    if kind == ".json":
        return ("[" + ",\n".join(rows) + "]").encode()
    if kind in (".jsonl", ".ndjson"):
        return "\n".join(rows).encode()
    values = [json.loads(row) for row in rows if len(row) < 4000 and "[[[[" not in row]
    cells = [value for value in values if isinstance(value, dict)]
    if kind in (".csv", ".tsv"):
        return table(cells, "\t" if kind == ".tsv" else ",")
    return columns(cells, kind)


def table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    out = io.StringIO()
    names = sorted({name for row in rows for name in row})
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(names)
    writer.writerows([str(row.get(name, "")) for name in names] for row in rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def columns(rows: list[dict[str, Any]], kind: str) -> bytes:
    """What Arrow takes of the rows: of those that it refuses, their text."""
    sound = json.loads(json.dumps(rows, ensure_ascii=True).encode("ascii").decode().replace("\\ud", "\\u00"))
    try:
        made = pyarrow.Table.from_pylist(sound or [{"question": "Q"}])
    except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
        made = pyarrow.table({"question": [json.dumps(row) for row in sound]})
    out = io.BytesIO()
    try:
        if kind == ".parquet":
            pyarrow.parquet.write_table(made, out)
        elif kind == ".feather":
            pyarrow.feather.write_feather(made, out)
        else:
            with pyarrow.ipc.new_stream(out, made.schema) as writer:
                writer.write_table(made)
    except pyarrow.ArrowException:  # columns that hold nothing but null, or empty structures
        pyarrow.parquet.write_table(pyarrow.table({"question": ["Q"]}), out)
    return out.getvalue()


def damaged(random: Random, raw: bytes) -> bytes:
    """Torn, or with bytes changed, put in or left out."""
    kind = random.random()
    if kind < 0.4 or not raw:
        return raw
    at = random.randrange(len(raw))
    if kind < 0.6:
        return raw[:at]
    odd = random.choice(
        [b"\0", b"\xff", b'"', b"\n", b"\r", b",", b"{", b"]", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80"]
    )
    if kind < 0.8:
        return raw[:at] + odd + raw[at:]
    if kind < 0.9:
        return raw[:at] + odd + raw[at + 1 :]
    return raw[:at] + raw[at + random.randint(1, 30) :]


@contextmanager
def bounded() -> Iterator[None]:
    """AssertionError where the block takes long."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still reading after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(seed: int, files: int, folder: Path) -> Counter[str]:
    """What became of so many files and their rows. AssertionError, or whatever a reader raises, names the file."""
    random, counts = Random(seed), Counter[str]()
    for number in range(files):
        kind = random.choice(KINDS)
        packed = random.choice(["", "", "", *PACKED]) if kind not in (".parquet", ".arrow", ".feather") else ""
        raw = content(random, kind)
        raw = PACKED[packed](damaged(random, raw)) if packed else raw
        file = folder / f"{number}{kind}{packed}"
        file.write_bytes(damaged(random, raw))
        try:
            with bounded():
                counts.update(looked_at(file))
        except BaseException as error:
            error.add_note(f"{file}, seed {seed}")
            raise
        counts["files"] += 1
        file.unlink()
    return counts


def looked_at(file: Path) -> Counter[str]:
    counts = Counter[str]()
    try:
        rows = list(read_rows(str(file)))
    except UserError as error:
        told(file, error)
        return Counter({"files refused": 1})
    for row in rows:
        assert row.file == str(file)
        assert row.line >= 1
        assert row.reason if isinstance(row, BadRow) else row.cells is not None
    counts["rows"] += len(rows)
    try:
        loaded = Dataset(path=str(file), max_bad=1.0).load()
        assert len(loaded.preferences) + len(loaded.bad) == len(rows)
        write_quarantine(loaded.bad, file.parent / "quarantine.jsonl")
        counts.update({"rows read": len(loaded.preferences), "rows quarantined": len(loaded.bad)})
    except UserError as error:
        told(file, error)
        counts.update({"rows in files of no known format": len(rows), "files of no known format": 1})
    try:
        counts["problems"] += len(Task(name="t", path=str(file)).problems())
    except UserError as error:
        told(file, error)
    return counts


def told(file: Path, error: UserError) -> None:
    """A refusal names the file."""
    assert str(file) in str(error), str(error)


def test_a_sample_of_spoilt_files(tmp_path: Path) -> None:
    counts = fuzz(1, 250, tmp_path)
    assert counts["files"] == 250
    assert min(counts["rows read"], counts["rows quarantined"], counts["files refused"]) > 20


@pytest.mark.soak
def test_ten_thousand_spoilt_files(tmp_path: Path) -> None:
    began = time.process_time()
    counts = fuzz(2, 10_000, tmp_path)
    for name, count in sorted(counts.items()):
        print(f"{count:>9,}  {name}")
    print(f"{time.process_time() - began:.0f} s of the processor")
    assert counts["files"] == 10_000
