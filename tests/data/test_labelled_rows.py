"""Formats with labels of steps or of single responses: rows of our own words, and what they hold worked by hand."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Mark, Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.formats import Format
from stepdpo.data.statistics import label_summary
from stepdpo.data.validation import Loaded


def load(folder: Path, *rows: Any, **settings: Any) -> Loaded:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return Dataset(path=str(file), **settings).load()


def one(folder: Path, row: Any, **settings: Any) -> Preference:
    loaded = load(folder, row, **settings)
    assert not loaded.bad, loaded.bad
    (preference,) = loaded.preferences
    return preference


def marked(text: str, marks: tuple[Mark, ...]) -> list[tuple[str, float | None]]:
    """Every stretch with its value."""
    ends = [0, *(mark.end for mark in marks)]
    return [(text[a:b], mark.value) for (a, b), mark in zip(pairwise(ends), marks, strict=True)]


# stepwise


def test_steps_are_lines_unless_white_space_parts_them(tmp_path: Path) -> None:
    row = {
        "prompt": "2 + 3 + 1?",
        "completions": ["2 + 3 = 5.", "5 + 1 = 7.", "\n\nSo 7."],
        "labels": [True, False, False],
    }
    made = one(tmp_path, row)
    assert (made.question, made.rejected, made.label, made.whole) == ("2 + 3 + 1?", "", 0.0, True)
    assert marked(made.chosen, made.chosen_steps) == [("2 + 3 = 5.", 1), ("\n5 + 1 = 7.", 0), ("\n\nSo 7.", 0)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": [True]}, "2 completions with 1 labels"),
        ({"labels": [True, None]}, "column 'labels', step 1: expected true or false"),
        ({"labels": [True, 0.5]}, "column 'labels', step 1: expected true or false"),
        ({"completions": ["a", " "]}, "column 'completions', step 1"),
        ({"completions": ["a", 3]}, "column 'completions', step 1"),
        ({"completions": []}, "column 'completions' is empty"),
        ({"prompt": " "}, "column 'prompt' is empty"),
    ],
)
def test_torn_steps_are_bad_rows(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    row = {"prompt": "Q", "completions": ["a", "b"], "labels": [True, 1]}
    assert one(tmp_path, row).label == 1.0
    loaded = load(tmp_path, {**row, **change}, row)
    assert reason in loaded.bad[0].reason


# KTO


@pytest.mark.parametrize("label", [True, False])
def test_kto_rows_are_single_responses(label: bool, tmp_path: Path) -> None:
    made = one(tmp_path, {"prompt": "Q", "completion": "5", "label": label})
    assert (made.question, made.chosen, made.rejected, made.label, made.whole) == ("Q", "5", "", float(label), True)
    assert made.chosen_steps == ()


def test_those_of_conversations_too(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("user", "R"))]
    made = one(tmp_path, {"prompt": turns, "completion": [{"role": "assistant", "content": "5"}], "label": True})
    assert (made.question, made.history, made.chosen) == ("Q", (Turn("assistant", "A"), Turn("user", "R")), "5")


def test_how_many_are_labelled_wrong_is_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "completion": "5", "label": n > 1} for n in range(5)]
    loaded = load(tmp_path, *rows)
    assert loaded.format == "kto"
    assert loaded.counts["responses labelled wrong"] == 2


# Math-Shepherd

TAG = "ки"
ASKED = "Ann has 2 eggs and finds 3. How many?"
SHEPHERD = {
    "input": f"{ASKED} Step 1: 2 + 3 = 5 {TAG}\nStep 2: Step 1: was 5, so 6. The answer is: 6 {TAG}",
    "label": f"{ASKED} Step 1: 2 + 3 = 5 +\nStep 2: Step 1: was 5, so 6. The answer is: 6 -",
    "task": "GSM8K",
}


def test_signs_stand_in_the_place_of_tags(tmp_path: Path) -> None:
    loaded = load(tmp_path, SHEPHERD)
    (made,) = loaded.preferences
    assert loaded.format == "math_shepherd"
    assert made.question == "Ann has 2 eggs and finds 3. How many?"
    assert marked(made.chosen, made.chosen_steps) == [
        ("Step 1: 2 + 3 = 5", 1),
        ("\nStep 2: Step 1: was 5, so 6. The answer is: 6", 0),
    ]
    assert (made.label, made.whole, made.meta) == (0.0, True, {"task": "GSM8K"})


def test_signs_in_the_text_are_no_labels_and_labels_may_turn_right_again(tmp_path: Path) -> None:
    row = {
        "input": f"2 - 1 + 3? Step 1: 2 - 1 = 0 {TAG}\nStep 2: so 4 {TAG}",
        "label": "2 - 1 + 3? Step 1: 2 - 1 = 0 -\nStep 2: so 4 +",
    }
    made = one(tmp_path, row, format=Format.MATH_SHEPHERD)
    assert [mark.value for mark in made.chosen_steps] == [0, 1]
    assert made.label == 1.0


def test_a_stray_tag_in_the_problem_is_taken_off_with_its_sign(tmp_path: Path) -> None:
    stray = {
        name: text.replace("and finds", f"and {TAG if name == 'input' else '+'} finds")
        for name, text in SHEPHERD.items()
    }
    loaded = load(tmp_path, stray)
    (made,) = loaded.preferences
    (plain,) = load(tmp_path, SHEPHERD).preferences
    assert made == plain
    assert loaded.counts[f"problems with a stray {TAG!r} (taken off)"] == 1


def test_without_a_label_of_the_first_step_the_question_mark_parts_them(tmp_path: Path) -> None:
    bare = {
        name: text.replace("Step 1: 2 + 3", "2 + 3").replace("Step 1: was", "it was") for name, text in SHEPHERD.items()
    }
    loaded = load(tmp_path, bare)
    (made,) = loaded.preferences
    assert made.question == "Ann has 2 eggs and finds 3. How many?"
    assert marked(made.chosen, made.chosen_steps)[0] == ("2 + 3 = 5", 1)
    assert loaded.counts["solutions without 'Step 1:'"] == 1


def test_what_follows_the_last_tag_has_no_label(tmp_path: Path) -> None:
    made = one(tmp_path, {**SHEPHERD, **{name: SHEPHERD[name] + "\nStep 3: done" for name in ("input", "label")}})
    assert [mark.value for mark in made.chosen_steps] == [1, 0, None]
    assert made.label is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": SHEPHERD["label"].replace("5 +", "5 =")}, "expected + or - at tag 1"),
        ({"label": SHEPHERD["label"].replace("eggs", "eggss")}, "they part before tag 1"),
        ({"label": SHEPHERD["label"] + " and more"}, "goes on behind"),
        ({"label": SHEPHERD["label"][:-1]}, "expected + or - at tag 2, got ''"),
        ({"input": "No tag? Step 1: 5", "label": "No tag? Step 1: 5"}, "no step ends with"),
        ({"input": f"Sum: 5 {TAG}", "label": "Sum: 5 +"}, "where the solution begins"),
        ({"input": f"Step 1: 5 {TAG}", "label": "Step 1: 5 +"}, "no problem before"),
        ({"input": f"Q? Step 1: 5 {TAG} {TAG}", "label": "Q? Step 1: 5 + +"}, "step 2 is empty"),
    ],
)
def test_torn_rows_of_math_shepherd(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, {**SHEPHERD, **change}, SHEPHERD)
    assert [reason in bad.reason for bad in loaded.bad] == [True]


# PRM800K


def rated(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False}


def step(*completions: Any, chosen: int | None = None, human: Any = None) -> dict[str, Any]:
    return {"completions": list(completions), "chosen_completion": chosen, "human_completion": human}


PEOPLE = {
    "labeler": "a",
    "generation": 3,
    "is_quality_control_question": False,
    "question": {"problem": "2 + 3 + 1?", "ground_truth_answer": "6"},
    "label": {
        "steps": [
            step(rated("First 2 + 3 = 5.", 1), rated("First 2 + 3 = 6.", -1), rated("We add.", 0), chosen=0),
            step(rated("Hm.", 0), rated("5 + 1 = 7.", -1), chosen=0),
            step(rated("7", -1), human={"text": "5 + 1 = 6.", "rating": None}),
            step(rated("It is 6.\n\n# Answer\n\n6", 1), chosen=0),
        ],
        "finish_reason": "solution",
    },
}


def changed(**label: Any) -> dict[str, Any]:
    row = copy.deepcopy(PEOPLE)
    row["label"].update(label)
    return row


def test_the_chosen_way_with_its_ratings(tmp_path: Path) -> None:
    loaded = load(tmp_path, PEOPLE)
    (made,) = loaded.preferences
    assert loaded.format == "prm800k"
    assert marked(made.chosen, made.chosen_steps) == [
        ("First 2 + 3 = 5.", 1),
        ("\nHm.", None),  # neutral: neither right nor wrong
        ("\n5 + 1 = 6.", 1),  # what people wrote in the place of wrong ones
        ("\nIt is 6.\n\n# Answer\n\n6", 1),
    ]
    assert (made.answer, made.label, made.whole, made.rejected) == ("6", 1.0, True, "")
    assert made.meta == {"generation": 3, "is_quality_control_question": False, "finish_reason": "solution"}


def test_the_mistake_at_which_the_labelling_stopped_is_the_last_step(tmp_path: Path) -> None:
    steps = [*PEOPLE["label"]["steps"][:1], step(rated("5 + 1 = 7.", -1), rated("5 + 1 = 6.", 1), rated("No.", -1))]
    made = one(tmp_path, changed(steps=steps, finish_reason="found_error"))
    assert marked(made.chosen, made.chosen_steps) == [("First 2 + 3 = 5.", 1), ("\n5 + 1 = 7.", 0)]
    assert (made.label, made.whole) == (0.0, False)


@pytest.mark.parametrize(
    "nothing", [step(), {"completions": None, "chosen_completion": None, "human_completion": None}, {}]
)
def test_without_any_completion_it_stops_there(nothing: dict[str, Any], tmp_path: Path) -> None:
    made = one(tmp_path, changed(steps=[PEOPLE["label"]["steps"][0], nothing, PEOPLE["label"]["steps"][3]]))
    assert marked(made.chosen, made.chosen_steps) == [("First 2 + 3 = 5.", 1)]
    assert (made.label, made.whole) == (None, False)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed(steps=[]), "column 'steps' is empty"),
        (changed(steps=[3]), "label.steps, step 0: expected an object"),
        (changed(steps=[step(rated("a", 1), chosen=1)]), "chosen_completion is 1, of 1 completions"),
        (changed(steps=[step(rated("a", 1), chosen=True)]), "chosen_completion is True"),
        (changed(steps=[step(rated("a", 2), chosen=0)]), "the rating is 2"),
        (changed(steps=[step(rated(" ", 1), chosen=0)]), "goes on with is empty"),
        (changed(steps=[step({"rating": 1}, chosen=0)]), "expected an object with a text"),
        (changed(steps=[{"completions": "a"}]), "completions: expected a list or null"),
        (changed(steps=[step(rated("a", 0))]), "no step was chosen or rated wrong"),
        ({**PEOPLE, "question": {"problem": ""}}, "column 'problem' is empty"),
        ({**PEOPLE, "question": 3}, "column 'question': expected an object"),
        ({**PEOPLE, "label": None}, "column 'label': expected an object, got null"),
    ],
)
def test_torn_rows_of_prm800k(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, row, PEOPLE, PEOPLE)
    assert [reason in bad.reason for bad in loaded.bad] == [True], loaded.bad


def test_rated_siblings_are_step_pairs(tmp_path: Path) -> None:
    loaded = load(tmp_path, PEOPLE, format=Format.PRM800K_PAIRS)
    # Step 2 has none rated right; at step 3 the right one is what people wrote.
    assert [(p.prefix, p.chosen, p.rejected) for p in loaded.preferences] == [
        ("", "First 2 + 3 = 5.", "First 2 + 3 = 6."),
        ("First 2 + 3 = 5.\nHm.\n", "5 + 1 = 6.", "7"),
    ]
    last = loaded.preferences[-1]
    assert [mark.value for mark in last.chosen_steps] == [1, None, 1]
    assert [mark.value for mark in last.rejected_steps] == [1, None, 0]
    assert last.chosen_steps[-1].end == len(last.prefix + last.chosen)
    assert not last.whole
    assert last.meta["step"] == 2
    assert loaded.counts["usable"] == 2


def test_right_siblings_take_turns_and_a_row_may_hold_no_pair(tmp_path: Path) -> None:
    many = step(
        rated("r1", 1), rated("w1", -1), rated("r2", 1), rated("w2", -1), rated("w3", -1), rated("w1", -1), chosen=2
    )
    loaded = load(
        tmp_path, changed(steps=[many]), changed(steps=[step(rated("r", 1), chosen=0)]), format=Format.PRM800K_PAIRS
    )
    assert [(p.chosen, p.rejected) for p in loaded.preferences] == [("r2", "w1"), ("r1", "w2"), ("r2", "w3")]
    assert loaded.counts["rows without a right and a wrong completion of one step"] == 1


def test_a_limit_may_fall_within_a_row(tmp_path: Path) -> None:
    assert len(load(tmp_path, PEOPLE, PEOPLE, format=Format.PRM800K_PAIRS, limit=3).preferences) == 3


# what they share


def test_the_same_columns_of_others_are_not_taken_for_these(tmp_path: Path) -> None:
    for row in ({"question": "Q", "label": "5"}, {"input": "Q", "label": "5", "task": "x"}):
        with pytest.raises(UserError, match="no known format"):
            load(tmp_path, row)


def test_labels_are_counted(tmp_path: Path) -> None:
    loaded = load(tmp_path, PEOPLE)
    assert label_summary(loaded.preferences) == {
        "steps": 4, "steps labelled": 3, "steps labelled right": 3, "steps labelled wrong": 0,
        "single responses": 1, "single responses labelled": 1, "single responses labelled right": 1,
        "single responses labelled wrong": 0,
    }  # fmt: skip
    assert label_summary([Preference("q", "", "a", "b")]) == {}
