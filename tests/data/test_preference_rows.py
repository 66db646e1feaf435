"""Preferences written for other trainers: our own reader finds the same in them, and what is lost is told."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny

from stepdpo.cli.export_data import export_data
from stepdpo.core.types import Mark, Preference, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.formats import Format
from stepdpo.data.preference_file import write_preferences
from stepdpo.data.preference_rows import CONVERSATIONS, CUT_OFF, EQUAL, LAYOUTS, SINGLE, preference_rows

WHOLE = Preference("2 + 3?", "", "Step 1: 5\nThe answer is: 5", " 6 \n", answer="5", whole=True)
TALK = replace(WHOLE, history=(Turn("system", "Be brief."), Turn("assistant", "5."), Turn("user", "Sure?")))
STEP = Preference(
    "2 + 3 + 1?", "Step 1: 5\nStep 2:", " 6", " 7", chosen_rest="\nThe answer is: 6", rejected_rest="\nStep 3: 8",
    chosen_steps=(Mark(9, 1.0), Mark(20, None)), rejected_weights=(Mark(3, 2.0),), confidence=0.75,
)  # fmt: skip


def written(path: Path, *words: Any, layout: str, level: str = "instance") -> tuple[list[dict[str, Any]], Path]:
    write_preferences(words, path / "in.jsonl")
    export_data(str(path / "in.jsonl"), layout, path / "out.jsonl", 0.5, level)
    return [json.loads(line) for line in (path / "out.jsonl").read_text().splitlines()], path / "out.jsonl"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("made", [WHOLE, TALK], ids=["plain", "talk"])
def test_our_reader_finds_the_same(layout: str, made: Preference, tmp_path: Path) -> None:
    holds = layout in ("trl_conversational", "sharegpt")
    if made.history and not holds:
        counts: Counter[str] = Counter()
        assert not list(preference_rows([made], layout, "instance", counts))
        assert counts == {CONVERSATIONS: 1}
        return
    _, file = written(tmp_path, made, layout=layout)
    # alpaca's column of the question has a name of its own; LLaMA-Factory's layouts have none for the answer.
    more: dict[str, Any] = {"columns": {"prompt": "instruction"}, "format": Format.TRL} if layout == "alpaca" else {}
    loaded = Dataset(path=str(file), **more).load()
    assert not loaded.bad
    assert loaded.preferences == (made if layout.startswith("trl") else replace(made, answer=""),)


def test_the_columns_are_those_of_the_others(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": "5."}, {"role": "user", "content": "Sure?"},
    ]  # fmt: skip
    (row,), _ = written(tmp_path, TALK, layout="trl_conversational")
    assert row == {
        "prompt": turns, "chosen": [{"role": "assistant", "content": WHOLE.chosen}],
        "rejected": [{"role": "assistant", "content": " 6 \n"}], "answer": "5",
    }  # fmt: skip
    (row,), _ = written(tmp_path, TALK, layout="sharegpt")
    assert row == {
        "conversations": [
            {"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5."}, {"from": "human", "value": "Sure?"},
        ],
        "system": "Be brief.", "chosen": {"from": "gpt", "value": WHOLE.chosen},
        "rejected": {"from": "gpt", "value": " 6 \n"},
    }  # fmt: skip
    (row,), _ = written(tmp_path, WHOLE, layout="alpaca")
    assert row == {"instruction": "2 + 3?", "input": "", "chosen": WHOLE.chosen, "rejected": " 6 \n"}


def test_a_step_goes_to_its_end_or_to_that_of_the_solution_and_the_rest_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,), file = written(tmp_path, STEP, layout="trl")
    assert row["chosen"] == "Step 1: 5\nStep 2: 6\nThe answer is: 6"
    assert row["rejected"] == "Step 1: 5\nStep 2: 7\nStep 3: 8"
    said = capsys.readouterr().out
    assert (
        "lost, as there are no columns for it: where the shared steps end (1), where the step ends, or what follows it "
        "(1), labels of steps (1), weights (1), confidence (1)\n"
    ) in said
    assert f"1  {CUT_OFF}" in said  # the rejected side has no answer
    assert "dataset_info" not in said
    (again,) = Dataset(path=str(file)).load().preferences
    assert (again.prefix + again.chosen, again.rejected) == (row["chosen"], row["rejected"])
    (row,), _ = written(tmp_path, STEP, layout="sharegpt", level="step")
    assert [row[side]["value"] for side in ("chosen", "rejected")] == ["Step 1: 5\nStep 2: 6", "Step 1: 5\nStep 2: 7"]
    said = capsys.readouterr().out
    assert f"2  {CUT_OFF}" in said
    entry = json.loads(said.partition("dataset_info.json: ")[2])["out"]
    assert entry["ranking"] is True
    assert entry["columns"] == {
        "messages": "conversations",
        "system": "system",
        "chosen": "chosen",
        "rejected": "rejected",
    }


def test_single_responses_and_equal_sides(tmp_path: Path) -> None:
    single = Preference("Q", "", "A\nThe answer is: 1", "", whole=True)
    equal = Preference("Q", "", "a", "ab", chosen_rest="b")
    counts: Counter[str] = Counter()
    rows = list(preference_rows([single, equal, WHOLE], "trl", "instance", counts))
    assert [row["prompt"] for row in rows] == ["2 + 3?"]
    assert +counts == {SINGLE: 1, EQUAL: 1}
    # Nothing but single responses: alpaca's rows for supervised training, which our reader knows by their columns.
    (row,), file = written(tmp_path, single, layout="alpaca")
    assert row == {"instruction": "Q", "input": "", "output": "A\nThe answer is: 1"}
    (again,) = Dataset(path=str(file)).load().preferences
    assert (again.question, again.chosen, again.rejected) == ("Q", "A\nThe answer is: 1", "")


def test_the_real_pairs_of_the_tests(tmp_path: Path) -> None:
    rows, file = written(tmp_path, *tiny.PREFERENCES, layout="trl")
    again = Dataset(path=str(file)).load().preferences
    for p, row, read in zip(tiny.PREFERENCES, rows, again, strict=True):
        assert row["chosen"] == p.prefix + p.chosen + p.chosen_rest
        assert (read.question, read.chosen, read.answer) == (p.question, row["chosen"], p.answer)
        assert read.rejected == p.prefix + p.rejected + p.rejected_rest
