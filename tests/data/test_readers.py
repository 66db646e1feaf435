"""Files and hub rows: containers, paths that lead nowhere, corrupt input."""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib
import json
import lzma
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.raw_rows import GOOD, PAIR, STEP, load, write

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference
from stepdpo.data import readers
from stepdpo.data import row_files as files
from stepdpo.data.dataset import Dataset
from stepdpo.data.formats import Format
from stepdpo.data.preference_file import write_preferences
from stepdpo.data.validation import enforce, write_quarantine

# Containers


def table(rows: list[dict[str, Any]]) -> Any:
    return pytest.importorskip("pyarrow").Table.from_pylist(rows)


def arrow(rows: list[dict[str, Any]], file: Path, kind: str = "new_stream") -> Path:
    made = table(rows)
    with getattr(importlib.import_module("pyarrow.ipc"), kind)(str(file), made.schema) as writer:
        writer.write_table(made)
    return file


def delimited(rows: list[dict[str, Any]], stream: Any, delimiter: str = ",") -> None:
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)


def contain(rows: list[dict[str, Any]], file: Path) -> None:
    """Write the rows as the file's name says."""
    compress = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(file.suffix, open)
    kind = file.with_suffix("").suffix if compress is not open else file.suffix
    if kind == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table(rows), file)
    elif kind in (".arrow", ".feather"):
        arrow(rows, file, "new_stream" if kind == ".arrow" else "new_file")
    else:
        with compress(file, "wt", encoding="utf-8", newline="") as stream:
            if kind in (".csv", ".tsv"):
                delimited(rows, stream, "," if kind == ".csv" else "\t")
            else:
                stream.write(json.dumps(rows, indent=2) if kind == ".json" else "\n".join(map(json.dumps, rows)))


NAMES = ["a.json", "a.parquet", "a.csv", "a.tsv", "a.arrow", "a.feather", "a.ndjson"]


@pytest.mark.parametrize("name", [*NAMES, "a.jsonl.gz", "a.json.bz2", "a.csv.xz", "a.csv.gz"])
def test_other_containers_hold_the_same(tmp_path: Path, name: str) -> None:
    contain(GOOD, tmp_path / name)
    found = Dataset(path=str(tmp_path / name)).load()
    assert found.preferences == load(tmp_path, *GOOD).preferences
    assert found.bad == ()


def test_json_lines_may_be_named_json(tmp_path: Path) -> None:
    write(tmp_path / "b.json", *GOOD)
    assert Dataset(path=str(tmp_path / "b.json")).load().preferences == load(tmp_path, *GOOD).preferences


def test_rows_of_csv_have_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b"\xef\xbb\xbf,prompt,chosen,rejected,confidence\r\n"
        b'0,"two\nlines, here",5,6,0.75\n'
        b"1,Q,5\n"  # line 4
        b"2,Q\xe4,5,6,\n"
        b"\n"
        b'3,Q,"[{""role"": ""assistant""}]",6,\n'
        b'4,Q,"5" or so,6,\n'
        b"5,Q,5,,\n"
        b"6,Q,5,7,\n"
    )
    loaded = Dataset(path=str(tmp_path / "a.csv"), columns={"question": "prompt"}).load()
    assert [(p.question, p.confidence) for p in loaded.preferences] == [
        ("two\nlines, here", 0.75),
        ("Q", 1.0),
        ("Q", 1.0),
    ]
    assert [(row.line, row.reason.split(";")[0]) for row in loaded.bad] == [
        (4, "3 fields under 5 columns"),
        (5, "the text holds bytes that are not UTF-8, or half of a surrogate pair"),
        (7, "column 'chosen' holds a list as text"),
        (8, "broken CSV: ',' expected after '\"'"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b'prompt,chosen,rejected\nQ,5,6\nQ,"5,6\nQ,5,6\n', r"a\.csv:3: broken CSV"),
        ("a.csv", b'prompt,"chosen', r"a\.csv:1: broken CSV in the names of the columns"),
        ("a.csv", b"prompt,chosen,chosen\n", "'chosen' is given twice"),
        ("a.csv", "prompt,chosen".encode("utf-16"), "UTF-16"),
        ("a.jsonl.gz", b"{}", "Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "cannot be decompressed"),
        ("a.jsonl.xz", b"{}", "cannot be decompressed"),
        ("a.arrow", b"ARROW1 not really", "cannot be read as Arrow"),
        ("a.xlsx", b"PK", "an Excel workbook is not read"),
        ("a.tar.gz", b"", "an archive is not read"),
        ("a.pkl", b"", "a pickle of Python is not read"),
    ],
)
def test_containers_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Dataset(path=str(tmp_path / name)).load()


def test_a_row_of_arrow_that_points_out_of_its_file(tmp_path: Path) -> None:
    """It is bad by itself: to read it would end the process, or give what lies elsewhere in memory."""
    file = arrow(
        [{"question": text, "chosen": "5", "rejected": "6"} for text in ("ab", "cd", "ef")], tmp_path / "a.arrow"
    )
    offsets = struct.pack("<4i", 0, 2, 4, 6)
    raw = file.read_bytes()
    assert offsets in raw
    for wrong in (90_000, -7):
        file.write_bytes(raw.replace(offsets, struct.pack("<4i", 0, 2, wrong, 6)))
        found = list(readers.read_rows(str(file)))
        assert [getattr(row, "reason", "")[:7] for row in found] == ["", "damaged", "damaged"]
        assert [row.line for row in found] == [1, 2, 3]


def test_a_parquet_file_whose_names_are_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    made = table([{"question": "Q", "chosen": "5", "rejected": "6"}]).replace_schema_metadata(None)
    pytest.importorskip("pyarrow.parquet").write_table(made, file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"rejected", b"re\xffected"))
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read as Parquet after row 0"):
        list(readers.read_rows(str(file)))


def questions(place: Path, **settings_: Any) -> list[str]:
    return [p.question for p in Dataset(path=str(place), **settings_).load().preferences]


def test_folders_that_the_library_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [PAIR | {"prompt": f"{n} + 3?"} for n in range(12)]
    expected = [row["prompt"] for row in rows]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"), num_shards=3)
    assert questions(tmp_path / "one") == expected
    both = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:2])}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "two"))
    assert questions(tmp_path / "two") == expected
    assert questions(tmp_path / "two", split="test") == expected[:2]
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        questions(tmp_path / "two", split="tset")
    assert Dataset(path=str(tmp_path / "two")).fingerprint() is not None
    (tmp_path / "one" / "state.json").write_text('{"_data_files": [{"filename": "../two/x.arrow"}]}')
    with pytest.raises(UserError, match="must name what lies beside it"):
        questions(tmp_path / "one")


@pytest.mark.parametrize("layout", ["data/train-0.jsonl", "train/0.jsonl", "train-0.jsonl"])
def test_folders_as_the_hub_has_them(tmp_path: Path, layout: str) -> None:
    """With what else lies there: a description, another split, and what macOS leaves on a foreign disc."""
    file = tmp_path / layout
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "README.md").write_text("---")
    write(file, PAIR)
    (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    other = tmp_path / layout.replace("train", "test")
    other.parent.mkdir(exist_ok=True)
    write(other, PAIR | {"prompt": "to be kept apart"})
    assert questions(tmp_path) == questions(tmp_path, split="train") == [PAIR["prompt"]]
    assert questions(tmp_path, split="test") == ["to be kept apart"]
    file.unlink()
    other.unlink()
    with pytest.raises(UserError, match=r"no \.jsonl.* file in this folder \(there is \.json, \.md\)"):
        questions(tmp_path)


def test_array_rows_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([PAIR, PAIR | {"chosen": None}, 7, PAIR | {"chosen": "\ud800"}], indent=0))
    bad = Dataset(path=str(file), format=Format.TRL).load().bad
    assert [(row.line, row.reason.split(";")[0]) for row in bad] == [
        (7, "column 'chosen': expected a string, got null"),
        (12, "expected a JSON object, got int"),
        (13, "the text holds bytes that are not UTF-8, or half of a surrogate pair"),
    ]


def test_an_integer_beyond_all_bounds_costs_its_element_alone(tmp_path: Path) -> None:
    text = json.dumps([PAIR, PAIR | {"answer": "HUGE"}, PAIR | {"chosen": "five"}])
    (tmp_path / "a.json").write_text(text.replace('"HUGE"', "9" * 5000))
    loaded = Dataset(path=str(tmp_path / "a.json")).load()
    assert (len(loaded.preferences), len(loaded.bad)) == (2, 1)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a":', '[{"a": 1}] x', "[" * 100_000])
def test_a_torn_array_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json:1: "):
        Dataset(path=str(tmp_path / "a.json")).load()


def test_a_folder_holds_files_and_a_run_folder_its_preferences(tmp_path: Path) -> None:
    write(tmp_path / "train-1.jsonl", GOOD[0])
    write(tmp_path / "train-2.jsonl", GOOD[1])
    write(tmp_path / "test.jsonl", GOOD[2])
    write(tmp_path / "quarantine.jsonl", {"reason": "not data"})
    assert len(Dataset(path=str(tmp_path)).load().preferences) == 2
    assert len(Dataset(path=str(tmp_path), split="test").load().preferences) == 1
    with pytest.raises(UserError, match="begins with the split 'dev'"):
        Dataset(path=str(tmp_path), split="dev").load()
    write_preferences([Preference("Q", "", "a", "b")], tmp_path / "preferences.jsonl")
    assert Dataset(path=str(tmp_path)).load().preferences[0].question == "Q"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "no data given"),
        ("???", "no data given"),
        ("nothing-here.jsonl", "no such file"),
        ("pkg://../secret.jsonl", "leads out of the package"),
        ("pkg://no/such.jsonl", "not part of this installation"),
        ("a\0b", "no such file|not a usable path"),
        ("x" * 5000, "not a usable path"),
    ],
)
def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Dataset(path=path).load()


def test_a_misspelt_file_is_guessed(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIR)
    with pytest.raises(UserError, match=r"did you mean .*pairs\.jsonl"):
        Dataset(path=str(tmp_path / "pair.jsonl")).load()


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_rows_are_numbered_and_the_split_defaults_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        calls.append((args, kwargs))
        return [STEP, STEP | {"chosen": ""}]

    fake_datasets(monkeypatch, load_dataset)
    loaded = Dataset(path="xinlai/Math-Step-DPO-10K").load()
    assert calls == [(("xinlai/Math-Step-DPO-10K", None), {"split": "train", "revision": None})]
    assert [row.place for row in loaded.bad] == ["xinlai/Math-Step-DPO-10K:2"]


def test_an_unreachable_hub_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("offline\nand a long story")

    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(UserError, match=r"split 'test': offline\n  without a network"):
        list(readers._hub_rows("a/b", subset="", split="test", revision=""))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        Dataset(path="a/b").load()


# Corrupt input

LINE = json.dumps(PAIR).encode()
CORRUPT = {
    "torn": (LINE[:30], "broken JSON: Unterminated string"),
    "not utf-8": (LINE.replace(b"What", b"Wh\xe4t"), "byte 0xe4 at column 15 is not UTF-8"),
    "nul byte": (LINE.replace(b"What", b"Wh\x00t"), "NUL byte at column 15"),
    "escaped nul": (LINE.replace(b"What", b"Wh\\u0000t"), "the text holds a NUL character"),
    "half surrogate": (LINE.replace(b"What", b"\\ud83d"), "half of a surrogate pair"),
    "too long": (LINE.replace(b"What", b"x" * 3000), "a line of more than"),
    "too deep": (b"[" * 2000, "broken JSON: nested too deeply"),
    "a list": (b"[1, 2]", "expected a JSON object, got list"),
    "a word": (b"null", "expected a JSON object, got NoneType"),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}', "column 'prompt' is given twice"),
    "two objects": (LINE + LINE, "broken JSON: Extra data"),
    "missing": (
        b'{"promt": "Q", "chosen": "a", "rejected": "b"}',
        "no column 'prompt' (a string); did you mean 'promt'?",
    ),
    "null": (b'{"prompt": null, "chosen": "a", "rejected": "b"}', "'prompt': expected a string, got null"),
    "number": (b'{"prompt": "Q", "chosen": 5, "rejected": "b"}', "'chosen': expected a string, got a number"),
    "object": (b'{"prompt": "Q", "chosen": {}, "rejected": "b"}', "'chosen': expected a string, got an object"),
    "empty": (b'{"prompt": "Q", "chosen": "a", "rejected": ""}', "column 'rejected' is empty"),
    "blank": (b'{"prompt": " \\n", "chosen": "a", "rejected": "b"}', "column 'prompt' is empty"),
    "equal": (b'{"prompt": "Q", "chosen": "a", "rejected": "a"}', "chosen and rejected are equal"),
    "two turns": (
        b'{"prompt": "Q", "chosen": [], "rejected": "a"}',
        "expected a string, or turns of which the last is the assistant's",
    ),
    "role": (
        b'{"prompt": [{"role": "god", "content": "Q"}], "chosen": "a", "rejected": "b"}',
        "turn 0: the role is 'god'",
    ),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_rows_are_bad_rows(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 2500)
    line, reason = CORRUPT[name]
    other = LINE.replace(b"2 + 3", b"4 + 5")
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([LINE, b"", line, other, b""]))
    loaded = Dataset(path=str(tmp_path / "a.jsonl")).load()
    assert len(loaded.preferences) == 2
    (bad,) = loaded.bad
    assert bad.place == f"{tmp_path / 'a.jsonl'}:3"
    assert reason in bad.reason
    assert len(bad.excerpt) <= 200
    with pytest.raises(UserError, match=r"1 of 3 rows cannot be used(.|\n)*a\.jsonl:3: "):
        enforce(loaded)
    enforce(loaded, "40%")
    write_quarantine(loaded.bad, tmp_path / "run" / "quarantine.jsonl")
    assert json.loads((tmp_path / "run" / "quarantine.jsonl").read_text())["line"] == 3


def test_byte_order_marks_crlf_and_blank_lines_are_fine(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.jsonl").write_bytes(mark + LINE + b"\r\n\r\n  \n" + mark + LINE.replace(b"2 +", b"4 +"))
    loaded = Dataset(path=str(tmp_path / "a.jsonl")).load()
    assert (len(loaded.preferences), loaded.bad) == (2, ())


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "no rows"), (b"\n \r\n", "no rows"), ("{}".encode("utf-16"), "UTF-16")]
)
def test_files_without_rows_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Dataset(path=str(tmp_path / "a.jsonl")).load()


def test_a_broken_parquet_file_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        Dataset(path=str(tmp_path / "a.parquet")).load()


def test_a_file_of_nothing_but_bad_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x\n" * 7)
    loaded = Dataset(path=str(tmp_path / "a.jsonl"), max_bad="100%").load()
    assert len(loaded.bad) == 7
    with pytest.raises(UserError, match="and 2 more"):
        enforce(loaded)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=3)), max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_of_a_damaged_file_is_lost(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    content = bytearray(b"\n".join(json.dumps(row).encode() for row in GOOD))
    for place, patch in damage:
        content[place % len(content) : place % len(content) + len(patch)] = patch
    (tmp_path / "a.jsonl").write_bytes(content)
    lines = [line.removeprefix(b"\xef\xbb\xbf").strip() for line in bytes(content).split(b"\n")]
    try:
        loaded = Dataset(path=str(tmp_path / "a.jsonl"), format=Format.STEP_DPO).load()
    except UserError:
        return
    assert len(loaded.preferences) + len(loaded.bad) == sum(map(bool, lines))
