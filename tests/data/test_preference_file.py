"""preferences.jsonl: what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.core.types import Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.preference_file import fingerprint, from_row, to_row, write_preferences
from stepdpo.data.validation import enforce

SAFE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FULL = SAFE.filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | SAFE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SAFE, inner, max_size=3),
    max_leaves=6,
)
VALUE = st.none() | st.floats(-1, 1)
PREFERENCES = st.builds(
    Preference,
    question=FULL, prefix=SAFE, chosen=FULL, rejected=SAFE, chosen_rest=SAFE, rejected_rest=SAFE, answer=SAFE,
    confidence=st.floats(0.5, 1), chosen_value=VALUE, rejected_value=VALUE,
    history=st.lists(st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=SAFE), max_size=3).map(tuple),
    meta=st.dictionaries(SAFE, JSON, max_size=3),
)  # fmt: skip


@given(PREFERENCES)
def test_preferences_survive_the_round_trip(preference: Preference) -> None:
    assert from_row(json.loads(json.dumps(to_row(preference)))) == preference


def test_default_fields_are_not_written() -> None:
    assert to_row(Preference("Q", "", "a", "b")) == {"question": "Q", "prefix": "", "chosen": "a", "rejected": "b"}


def test_files_of_preferences_survive_the_round_trip(tmp_path: Path) -> None:
    kept = [
        Preference(
            "Q", "p:", " a\u2028\r", "b", history=(Turn("user", "x"),), confidence=0.75, meta={"n": [1, {"k": None}]}
        ),
        Preference("Q 2", "", "solution", ""),
    ]
    write_preferences(kept, tmp_path / "preferences.jsonl")
    loaded = Dataset(path=str(tmp_path / "preferences.jsonl"), max_bad=0).load()
    enforce(loaded)
    assert list(loaded.preferences) == kept
    assert loaded.counts["without a rejected side"] == 1
    assert fingerprint(loaded.preferences) == fingerprint(kept) != fingerprint(kept[::-1])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "preferences.jsonl"
    write_preferences([Preference("Q", "", "a", "b")], file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_preferences([Preference("Q", "", "a", "b", chosen_value=float("nan"))], file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confidence": 0.2}, "0.2 is not between 0.5 and 1"),
        ({"confidence": True}, "expected a number, got true or false"),
        ({"chosen_value": 1.5}, "1.5 is not between -1 and 1"),
        ({"history": "hello"}, "expected a list of turns, got a string"),
        ({"history": [1]}, "turn 0: expected an object, got a number"),
        ({"meta": []}, "expected an object, got a list"),
        ({"rejected": "  "}, "column 'rejected' is empty"),
        ({"rejected": "", "rejected_rest": "x"}, "column 'rejected' is empty"),
    ],
)
def test_preferences_out_of_range_are_bad_rows(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    row = to_row(Preference("Q", "", "a", "b")) | change
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    (bad,) = Dataset(path=str(tmp_path / "data.jsonl")).load().bad
    assert reason in bad.reason
