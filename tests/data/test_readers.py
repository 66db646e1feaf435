"""Files and hub rows: containers, paths that lead nowhere, corrupt input."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("name", ["a.json", "b.json", "a.parquet"])
def test_other_containers_hold_the_same(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.json":
        file.write_text(json.dumps(GOOD, indent=2))
    elif name == "b.json":
        write(file, *GOOD)
    else:
        tables = pytest.importorskip("pyarrow.parquet")
        tables.write_table(pytest.importorskip("pyarrow").Table.from_pylist(GOOD), file)
    assert Dataset(path=str(file)).load().preferences == load(tmp_path, *GOOD).preferences


def test_array_rows_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([PAIR, PAIR | {"chosen": None}, 7, PAIR | {"chosen": "\ud800"}], indent=0))
    bad = Dataset(path=str(file), format=Format.TRL).load().bad
    assert [(row.line, row.reason.split(";")[0]) for row in bad] == [
        (7, "column 'chosen': expected a string, got null"),
        (12, "expected a JSON object, got int"),
        (13, "the text holds bytes that are not UTF-8, or half of a surrogate pair"),
    ]


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
    assert len(Dataset(path=str(tmp_path)).load().preferences) == 3
    assert len(Dataset(path=str(tmp_path), split="train").load().preferences) == 2
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
