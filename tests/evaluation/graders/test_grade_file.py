"""`stepdpo grade FILE`: totals, one verdict a row, and messages that name the line at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.evaluation.grade_file import grade_file


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_totals_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"id": "a", "response": r"\boxed{\frac{1}{2}}", "answer": 0.5},
        {"prediction": "The answer is: 7", "gold": "8"},
        "",
        {"response": "", "answer": ["1", "2"], "problem": "Which?"},
        {"response": "1 and 2", "answer": ["2", "1"]},
    )
    out = tmp_path / "new" / "verdicts.jsonl"
    totals = grade_file(path, "strict", out)
    assert totals == {
        "grader": "strict", "n": 4, "correct": 2, "wrong": 1, "unparsed": 1, "timeouts": 0, "accuracy": 0.5
    }  # fmt: skip
    assert "50.00% correct (2 of 4), 1 wrong, 1 unparsed" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0] == {"index": 0, "id": "a", "grade": "correct", "extracted": r"\frac{1}{2}", "reason": "box; equal"}
    assert [row["grade"] for row in rows] == ["correct", "wrong", "unparsed", "correct"]
    assert [p.name for p in out.parent.iterdir()] == ["verdicts.jsonl"]


def test_the_two_graders_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"response": "The answer is: 5000", "answer": "50"})
    assert grade_file(path, "official")["accuracy"] == 1.0
    assert grade_file(path, "strict")["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "rows.jsonl:2: not a JSON object"),
        ("[1]", "rows.jsonl:2: expected a JSON object"),
        ('{"response": "5"}', "rows.jsonl:2: no column 'answer'"),
        ('{"answer": "5"}', "rows.jsonl:2: no column 'response'"),
        ('{"response": 5, "answer": "5"}', "rows.jsonl:2: 'response' must be text"),
        ('{"response": "5", "answer": null}', "rows.jsonl:2: 'answer' must be"),
        ('{"response": "5", "answer": []}', "rows.jsonl:2: 'answer' must be"),
        ('{"response": "5", "answer": {"x": 1}}', "rows.jsonl:2: 'answer' must be"),
        ("[" * 100_000, "rows.jsonl:2: not a JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, says: str) -> None:
    out = tmp_path / "out.jsonl"
    path = write(tmp_path / "rows.jsonl", {"response": "5", "answer": "5"}, line)
    with pytest.raises(UserError) as caught:
        grade_file(path, "strict", out)
    assert says in str(caught.value)
    assert not out.exists()


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"response": "5", "answer": "5"}\n\xff\xfe\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2"):
        grade_file(path)


def test_other_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"response": "5", "answer": "5"})
    with pytest.raises(UserError, match="did you mean 'strict'"):
        grade_file(path, "strickt")
    with pytest.raises(UserError, match="cannot be read"):
        grade_file(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="holds no rows"):
        grade_file(write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="the file to be graded"):
        grade_file(path, "strict", path)
    with pytest.raises(UserError, match="cannot be written"):
        grade_file(path, "strict", path / "below" / "out.jsonl")
