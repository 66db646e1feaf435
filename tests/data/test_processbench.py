"""ProcessBench's rows: subsets, steps as a model reads them, bad rows with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepdpo.core.errors import UserError
from stepdpo.data.labelled_solutions import is_labelled
from stepdpo.data.processbench import ProcessBench
from stepdpo.data.tasks import Task

ROW: dict[str, Any] = {
    "id": "gsm8k-0", "generator": "m", "problem": "1 + 1 + 1?", "steps": ["1 + 1 = 2\n", " 2 + 1 = 4"],
    "final_answer_correct": False, "label": 1,
}  # fmt: skip
RIGHT = {**ROW, "id": "math-3", "problem": "2?", "label": -1, "final_answer_correct": True}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_is_a_solution_as_a_model_reads_it(tmp_path: Path) -> None:
    one, other = ProcessBench(path=str(lines(tmp_path / "x.jsonl", ROW, RIGHT))).solutions()
    assert (one.id, one.problem.question, one.first_error, one.correct) == ("gsm8k-0", "1 + 1 + 1?", 1, False)
    assert one.steps == ("Step 1: 1 + 1 = 2\n", "Step 2: 2 + 1 = 4")
    assert (other.first_error, other.correct) == (-1, True)
    # A file tells its subsets by its ids.
    assert (one.subset, other.subset) == ("gsm8k", "math")


def test_steps_are_written_as_asked(tmp_path: Path) -> None:
    path = str(lines(tmp_path / "x.jsonl", ROW))
    (one,) = ProcessBench(path=path, step="{text}\n\n").solutions()
    assert one.steps == ("1 + 1 = 2\n\n", "2 + 1 = 4")
    with pytest.raises(ValueError, match=r"step: must hold \{text\}"):
        ProcessBench(path=path, step="Step {number}")


def test_a_folder_has_a_file_a_subset(tmp_path: Path) -> None:
    (tmp_path / "gsm8k.json").write_text(json.dumps([ROW, {**ROW, "id": "gsm8k-1"}]))
    pq.write_table(pa.Table.from_pylist([RIGHT]), tmp_path / "math.parquet")
    task = ProcessBench(path=str(tmp_path), subsets=("gsm8k", "math"))
    assert [(one.id, one.subset) for one in task.solutions()] == [
        ("gsm8k-0", "gsm8k"), ("gsm8k-1", "gsm8k"), ("math-3", "math"),
    ]  # fmt: skip
    # limit is of each subset; a problem is listed once, however many solutions it has
    assert len(ProcessBench(path=str(tmp_path), subsets=("gsm8k", "math"), limit=1).solutions()) == 2
    assert [problem.question for problem in task.problems()] == ["1 + 1 + 1?", "2?"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": 2}, "column 'label': 2 is not between -1 and 1"),
        ({"label": 0.5}, "expected the place of a step"),
        ({"label": None}, "column 'label': expected a string, got null"),
        ({"steps": []}, "column 'steps' is empty"),
        ({"steps": ["a", " "]}, "expected texts, none of them empty"),
        ({"problem": None, "probelm": "Q"}, "column 'problem'"),
    ],
)
def test_bad_rows_are_named_with_their_place(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = lines(tmp_path / "x.jsonl", RIGHT, {**ROW, **change})
    with pytest.raises(UserError, match=r"1 rows are no labelled solutions(.|\n)*x\.jsonl:2: ") as error:
        ProcessBench(path=str(path)).solutions()
    assert reason in str(error.value)


def test_other_names_of_columns(tmp_path: Path) -> None:
    row = {"question": "Q", "chain": ["a"], "first_wrong": 0}
    path = str(lines(tmp_path / "mine.jsonl", row))
    columns = {"problem": "question", "steps": "chain", "label": "first_wrong"}
    (one,) = ProcessBench(path=path, columns=columns).solutions()
    assert (one.id, one.subset, one.first_error, one.correct) == ("mine-0", "mine", 0, None)
    with pytest.raises(UserError, match=r"mine\.jsonl:1: columns\.steps: no column 'chian'; did you mean 'chain'\?"):
        ProcessBench(path=path, columns={**columns, "steps": "chian"}).solutions()
    with pytest.raises(ValueError, match="'labels' is none of ProcessBench's; did you mean 'label'"):
        ProcessBench(path=path, columns={"labels": "x"})


def test_which_tasks_ask_where_solutions_go_wrong() -> None:
    assert is_labelled(ProcessBench())
    assert not is_labelled(Task(name="t", path="x"))
