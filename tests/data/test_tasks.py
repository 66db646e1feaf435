"""Problems of tasks: columns, gold answers, bad rows."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.core.types import Problem
from stepdpo.data.problem_fields import last_box
from stepdpo.data.tasks import Task
from stepdpo.tinymath.problems import Stories
from stepdpo.tinymath.problems import problems as generated
from stepdpo.tinymath.task import TinymathTask

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("STEPDPO_SHARED", ROOT.parent / "shared")) / "data"


def problems(path: Path, *rows: Any, **settings: Any) -> list[Problem]:
    (path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task(name="t", path=str(path / "t.jsonl"), **settings).problems()


@pytest.mark.parametrize(
    ("row", "answers", "solution"),
    [
        ({"question": "Q", "answer": "a <<1>>\n#### 1,234"}, ("1234",), "a <<1>>\n#### 1,234"),
        ({"question": "Q", "answer": "x #### 1,2"}, ("1,2",), "x #### 1,2"),
        ({"problem": "Q", "solution": r"\boxed{1} then \boxed{\frac{1}{2}}."}, (r"\frac{1}{2}",), None),
        ({"problem": "Q", "solution": r"\boxed{1}", "answer": "2"}, ("2",), r"\boxed{1}"),
        ({"problem": "Q", "answer": 18}, ("18",), ""),
        ({"instruction": "Q", "output": "so", "answer": ["1", " 2 "]}, ("1", "2"), "so"),
        ({"question": "Q", "answers": ["3"], "solution": "it is"}, ("3",), "it is"),
    ],
)
def test_schemas(tmp_path: Path, row: dict[str, Any], answers: tuple[str, ...], solution: str | None) -> None:
    (problem,) = problems(tmp_path, row)
    assert (problem.question, problem.answers) == ("Q", answers)
    assert problem.solution == (row["solution"] if solution is None else solution)
    assert problem.id == "t/00000"


def test_a_number_that_is_none_is_found_on_reading(tmp_path: Path) -> None:
    """Kept as it is, it would throw a finished evaluation away when that is written."""
    good = {"question": "Q", "answer": "#### 1", "level": 3}
    with pytest.raises(UserError, match=r"column 'level' holds what JSON cannot"):
        problems(tmp_path, good, {**good, "level": float("nan")})


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{3} wait, \boxed{2}", "2"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"\fbox{ 7 }", "7"),
        (r"\boxed 5", "5"),
        (r"\boxed{2} and \boxed{torn", "2"),
        ("nothing", ""),
        (r"\boxed{" * 500, ""),
    ],
)
def test_the_last_balanced_box(text: str, content: str) -> None:
    assert last_box(text) == content


def test_given_ids_meta_and_other_column_names(tmp_path: Path) -> None:
    row = {"unique_id": "u/1", "query": "Q", "answer": "2", "level": 5, "subject": "Algebra"}
    (problem,) = problems(tmp_path, row, columns={"question": "query"})
    assert (problem.id, problem.meta) == ("u/1", {"level": 5, "subject": "Algebra"})
    with pytest.raises(UserError, match="2 problems have the id 'u/1'"):
        problems(tmp_path, row, row, columns={"question": "query"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Q"}, "no final answer"),
        ({"problem": "Q", "solution": "no box"}, "no final answer"),
        ({"question": "Q", "answer": "#### "}, "no final answer"),
        ({"question": "", "answer": "1"}, "column 'question' is empty"),
        ({"quesion": "Q", "answer": "1"}, "did you mean 'quesion'"),
        ({"question": "Q", "answer": {}}, "expected a string, a number or a list of them, got an object"),
        ([1], "expected a JSON object"),
    ],
)
def test_bad_rows_are_errors_with_their_place(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"question": "Q", "answer": "1"}
    with pytest.raises(UserError, match=r"1 of 2 rows(.|\n)*t\.jsonl:2: ") as error:
        problems(tmp_path, good, row)
    assert reason in str(error.value)


def test_limit_and_empty_files(tmp_path: Path) -> None:
    rows = [{"question": f"Q {i}", "answer": "1"} for i in range(5)]
    assert [p.question for p in problems(tmp_path, *rows, limit=2)] == ["Q 0", "Q 1"]
    with pytest.raises(UserError, match="no problems"):
        problems(tmp_path)
    with pytest.raises(ValueError, match="limit"):
        Task(name="t", path="x", limit=0)
    with pytest.raises(ValueError, match="count"):
        TinymathTask(count=0)


@pytest.mark.parametrize("kind", Stories)
def test_tinymath_generates(kind: Stories) -> None:
    made = TinymathTask(count=7, seed=3, limit=2, stories=kind).problems()
    assert made == generated("test", 7, 3, kind)[:2]


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "conf" / "task").glob("*.yaml"))])
def test_conf_keys_are_the_fields(name: str) -> None:
    node: Any = OmegaConf.load(ROOT / "conf" / "task" / f"{name}.yaml")
    keys = set(node) - {"_target_"}
    node.checker = None  # built by its own tests
    for key in node:
        if OmegaConf.is_missing(node, key):
            node[key] = ["a"] if key == "tasks" else "a"  # only a user knows it
    part = build(node)
    assert keys == {field.name for field in dataclasses.fields(part)}
    assert part.name == name


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count"), [("gsm8k_test", 1319), ("math_test", 5000), ("math500_test", 500)])
def test_real_benchmarks_are_whole(name: str, count: int) -> None:
    file = SHARED / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"needs {file.name} of the shared data")
    assert len(Task(name=name, path=str(file)).problems()) == count


@pytest.mark.shared
def test_gold_of_math_is_that_of_math500() -> None:
    if not (SHARED / "math500_test.jsonl").exists():
        pytest.skip("needs math500_test.jsonl of the shared data")
    known = {p.question: p.answers for p in Task(name="a", path=str(SHARED / "math_test.jsonl")).problems()}
    some = Task(name="b", path=str(SHARED / "math500_test.jsonl")).problems()
    assert all(known[p.question] == p.answers for p in some)
