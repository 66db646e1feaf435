"""preferences.jsonl: what is written is read again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.core.types import Mark, Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.fields import RowError
from stepdpo.data.preference_file import fingerprint, from_row, sides, to_row, write_preferences
from stepdpo.data.validation import enforce

SAFE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FULL = SAFE.filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | SAFE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SAFE, inner, max_size=3),
    max_leaves=6,
)
VALUE = st.none() | st.floats(-1, 1)


def _marks(draw: st.DrawFn, length: int, high: float) -> tuple[Mark, ...]:
    ends = sorted(draw(st.sets(st.integers(1, length), max_size=3)) if length else [])
    return tuple(Mark(end, draw(st.none() | st.floats(0, high))) for end in ends)


@st.composite
def preferences(draw: st.DrawFn) -> Preference:
    """A preference of any kind, with marks that lie within its texts."""
    plain = draw(PLAIN)
    lengths = {side: len(plain.prefix) + sum(map(len, sides(plain, side))) for side in ("chosen", "rejected")}
    return dataclasses.replace(
        plain,
        label=draw(st.none() | st.floats(0, 1)),
        **{f"{side}_steps": _marks(draw, length, 1) for side, length in lengths.items()},
        **{f"{side}_weights": _marks(draw, length, 1e9) for side, length in lengths.items()},
    )


PLAIN = st.builds(
    Preference,
    question=FULL, prefix=SAFE, chosen=FULL, rejected=SAFE, chosen_rest=SAFE, rejected_rest=SAFE, answer=SAFE,
    confidence=st.floats(0.5, 1), chosen_value=VALUE, rejected_value=VALUE,
    history=st.lists(st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=SAFE), max_size=3).map(tuple),
    meta=st.dictionaries(SAFE, JSON, max_size=3),
)  # fmt: skip


@given(preferences())
def test_preferences_survive_the_round_trip(preference: Preference) -> None:
    assert from_row(json.loads(json.dumps(to_row(preference)))) == preference


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ([[4, 1]], r"a mark ends at 4, and prefix \+ chosen \+ chosen_rest has 3 characters"),
        ([[1, 0], [1, 1]], "mark 1: ends at 1, not after the one before it"),
        ([[1, 1.5]], "mark 0: 1.5 is not between 0 and 1"),
        ([[1, float("nan")]], "mark 0: nan is not between 0 and 1"),
        ([[1, True]], "mark 0: expected a number or null"),
        ([[1.0, 1]], r"mark 0: expected \[end, value\], got"),
        ([[1]], r"mark 0: expected \[end, value\], got"),
        ({"1": 1}, r"expected a list of \[end, value\], got an object"),
    ],
)
def test_marks_that_cannot_be_meant_are_told(marks: Any, reason: str) -> None:
    row = {"question": "Q", "prefix": "p", "chosen": "a", "chosen_rest": "r", "rejected": "b", "chosen_steps": marks}
    with pytest.raises(RowError, match=reason):
        from_row(row)


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
        ({"chosen_weights": [[1, 10**400]]}, "mark 0: 10000000000000000000 is not between 0 and 1e+09"),
        ({"chosen_weights": [[1, 1e308]]}, "is not between 0 and 1e+09"),
        ({"chosen_weights": [[1, float("inf")]]}, "mark 0: inf is not between"),
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
