"""Writing labelled steps in TRL's form: another reader opens it, and reading it again gives the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stepdpo.core.types import Mark, Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.stepwise import AGAIN, CONVERSATIONS, CUT, UNLABELLED, UNPARTED, completions_of, stepwise_rows

TEXT = "We add.\nStep 1: 2 + 3 = 5\nStep 2: 5 + 1 = 7\nIt is 7"
ENDS = (TEXT.index("\nStep 2"), TEXT.index("\nIt"), len(TEXT))


def labelled(*values: float | None, text: str = TEXT, **more: Any) -> Preference:
    steps = tuple(Mark(end, value) for end, value in zip(ENDS, values, strict=True))
    return Preference("Q", "", text, "", chosen_steps=steps, **more)


def write(*preferences: Preference, threshold: float = 0.5) -> tuple[list[dict[str, Any]], Counter[str]]:
    counts: Counter[str] = Counter()
    return list(stepwise_rows(preferences, threshold, counts)), +counts


def test_a_row_has_a_line_for_every_step() -> None:
    rows, counts = write(labelled(1, 0.5, 0.25))
    parts = [TEXT[: ENDS[0]], TEXT[ENDS[0] + 1 : ENDS[1]], TEXT[ENDS[1] + 1 :]]
    assert rows == [{"prompt": "Q", "completions": parts, "labels": [True, True, False]}]
    assert not counts


def test_the_threshold_belongs_to_the_right_ones() -> None:
    assert write(labelled(1, 0.5, 0.25), threshold=0.51)[0][0]["labels"] == [True, False, False]
    assert write(labelled(1, 0.5, 0.25), threshold=0.25)[0][0]["labels"] == [True, True, True]


def test_it_ends_before_the_first_step_that_nobody_labelled() -> None:
    rows, counts = write(labelled(1, None, 0), labelled(None, 1, 1))
    assert [row["labels"] for row in rows] == [[True]]
    assert counts == {CUT: 1, UNLABELLED: 1}


def test_both_sides_of_a_pair_each_text_once() -> None:
    right, wrong = (Mark(9, 1.0), Mark(19, 1.0), Mark(27, 1.0)), (Mark(9, 1.0), Mark(19, 0.0))
    pair = Preference("Q", "Step 1: 5\nStep 2:", " 6", " 7", "\nIt is 6", "", chosen_steps=right, rejected_steps=wrong)
    rows, counts = write(pair, pair)
    assert [row["completions"] for row in rows] == [
        ["Step 1: 5", "Step 2: 6", "It is 6"],
        ["Step 1: 5", "Step 2: 7"],
    ]
    assert counts == {AGAIN: 2}


def test_what_the_form_has_no_place_for_is_counted() -> None:
    conversation = labelled(1, 1, 1, history=(Turn("assistant", "A"), Turn("user", "B")))
    glued = Preference("Q", "", "abcd", "", chosen_steps=(Mark(2, 1.0), Mark(4, 1.0)))
    blank = Preference("Q", "", "ab  \n", "", chosen_steps=(Mark(2, 1.0), Mark(4, 1.0)))
    assert write(conversation, glued, blank) == ([], Counter({CONVERSATIONS: 1, UNPARTED: 2}))


def random_preference(random: Random) -> Preference:
    """Texts whose stretches begin and end in all ways of white space."""
    parts = ["".join(random.choices("ab1 \n", k=random.randint(1, 5))) for _ in range(random.randint(1, 5))]
    ends, at = [], 0
    for part in parts:
        at += len(part)
        ends.append(at)
    values = [random.choice([0.0, 1.0, 0.5, None]) for _ in parts]
    return Preference(f"Q{random.random()}", "", "".join(parts) or "a", "", chosen_steps=tuple(map(Mark, ends, values)))


def test_reading_it_again_gives_the_same_texts_and_labels(tmp_path: Path) -> None:
    random = Random(0)
    made = [random_preference(random) for _ in range(600)]
    counts: Counter[str] = Counter()
    written = list(stepwise_rows(made, 0.5, counts))
    assert len(written) > 60
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in written))
    loaded = Dataset(path=str(file)).load()
    assert (loaded.format, loaded.bad) == ("stepwise", ())
    before = {p.question: p for p in made}
    for again in loaded.preferences:
        p = before[again.question]
        count = len(again.chosen_steps)
        end = p.chosen_steps[count - 1].end
        assert again.chosen.rstrip() == p.chosen[:end].rstrip()
        assert p.chosen.startswith(again.chosen)
        known = [mark.value for mark in p.chosen_steps[:count]]
        assert [mark.value for mark in again.chosen_steps] == [float(v is not None and v >= 0.5) for v in known]
        assert p.chosen_steps[count:] == () or p.chosen_steps[count].value is None


@pytest.mark.parametrize(
    ("text", "ends", "parts"),
    [
        ("a\nb", [1], ["a", "b"]),
        ("a\nb", [2], ["a", "b"]),
        ("a\n\nb", [1], ["a", "\n\nb"]),
        ("a\n\nb", [3], ["a\n\n", "b"]),
        ("a b", [1], ["a", " b"]),
        ("ab", [1], []),
    ],
)
def test_the_seams(text: str, ends: list[int], parts: list[str]) -> None:
    assert completions_of(text, ends) == parts


def test_the_datasets_library_opens_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows, _ = write(labelled(1, 0.5, 0.25), labelled(1, None, None))
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    opened = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened.to_list() == rows
