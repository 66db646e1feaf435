"""The tasks that are a YAML file alone: rows in the columns of each benchmark become the right problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.data.choices import ASKED
from stepdpo.data.tasks import Task
from stepdpo.evaluation.graders.strict import Strict

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"

OLYMPIAD = {
    "id": 7, "question": "Find all primes $p$ with $p^2 < 26$ and $p \\ne 3$.", "context": None,
    "solution": ["Try each.", "Another way."], "final_answer": ["$2,5$"], "is_multiple_answer": True, "unit": None,
    "answer_type": "Numerical", "error": None, "subfield": "Number Theory", "language": "English",
}  # fmt: skip
AQUA = {
    "question": "A box holds 4 cups. How many do 5 hold?", "options": ["A)9", "B)20", "C)16", "D)25", "E)45"],
    "rationale": "4 times 5 is 20.\nAnswer B", "correct": "B",
}  # fmt: skip
SVAMP = {
    "ID": "chal-9", "Body": "Tom has 8 pens.", "Question": "How many has he when he gives 3 away?",
    "Equation": "( 8.0 - 3.0 )", "Answer": "5.0", "Type": "Subtraction", "question_concat": "not read",
}  # fmt: skip
MAWPS = {
    "id": "mawps__a", "question": "Ann had 1,200 beads and lost 200. How many are left?", "chain": "<gadget>",
    "result": "1_000", "result_float": 1000.0, "equation": "x = 1200 - 200", "expression": "1200 - 200",
}  # fmt: skip
SAID: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "aime24": (
        {"id": 60, "problem": "Find it.", "solution": r"So \boxed{204}.", "answer": "204", "url": "u", "year": "2024"},
        "Find it.", "204", r"\boxed{204}",
    ),
    "aime25": ({"problem": "Find it.", "answer": "070", "id": "0"}, "Find it.", "070", r"\boxed{70}"),
    "amc23": ({"id": 3, "answer": 27.0, "url": "u", "question": "Find it."}, "Find it.", "27.0", "The answer is 27."),
    "olympiadbench": (OLYMPIAD, OLYMPIAD["question"], "$2,5$", r"So \boxed{5} and \boxed{2}"),
    "minerva": (
        {"question": "What is the speed?", "answer": r"3 \times 10^{2}"}, "What is the speed?", r"3 \times 10^{2}",
        r"\boxed{300}",
    ),
    "svamp": (SVAMP, "Tom has 8 pens. How many has he when he gives 3 away?", "5.0", "#### 5"),
    "mawps": (MAWPS, MAWPS["question"], "1000.0", "The answer is 1,000."),
    "aqua": (
        AQUA, f"{AQUA['question']}\n{ASKED}\n(A) 9\n(B) 20\n(C) 16\n(D) 25\n(E) 45", "B", "The answer is (B) 20.",
    ),
}  # fmt: skip
"""Of each: a row as the benchmark has it, the question that is asked, the gold answer, and a right response."""


def task(name: str, path: Path, **settings: Any) -> Task:
    node = OmegaConf.load(CONF / f"{name}.yaml")
    node.path, node.split = str(path), ""
    made: Task = build(OmegaConf.merge(node, settings))
    return made


def written(folder: Path, kind: str, *rows: dict[str, Any]) -> Path:
    file = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
    elif kind == "json":
        file.write_text(json.dumps(list(rows)))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", SAID)
def test_a_row_becomes_a_problem(name: str, kind: str, tmp_path: Path) -> None:
    row, question, answer, response = SAID[name]
    (problem,) = task(name, written(tmp_path, kind, row)).problems()
    assert (problem.question, problem.answers) == (question, (answer,))
    assert Strict().grade(response, problem).verdict == "correct"
    assert Strict().grade(r"It is \boxed{12345}.", problem).verdict == "wrong"


def test_every_benchmark_of_one_yaml_is_looked_at() -> None:
    generated = {"tinymath", "tinymath_long", "gsm8k", "math", "math500"}  # these have tests of their own
    assert {file.stem for file in CONF.glob("*.yaml")} - generated >= set(SAID)


def test_ids_meta_and_gold_workings(tmp_path: Path) -> None:
    (svamp,) = task("svamp", written(tmp_path, "jsonl", SVAMP)).problems()
    assert (svamp.id, svamp.meta) == ("chal-9", {"type": "Subtraction"})
    (olympiad,) = task("olympiadbench", written(tmp_path, "jsonl", OLYMPIAD)).problems()
    assert (olympiad.id, olympiad.solution) == ("7", "Try each.\nAnother way.")
    assert olympiad.meta == {"type": "Numerical", "subject": "Number Theory"}
    (aqua,) = task("aqua", written(tmp_path, "jsonl", AQUA)).problems()
    assert (aqua.id, aqua.solution) == ("aqua/00000", AQUA["rationale"])


def test_what_a_problem_is_told_within_comes_before_it(tmp_path: Path) -> None:
    row = {**OLYMPIAD, "context": "Let ABC be a triangle.", "question": "Find its area.", "final_answer": ["1"]}
    (problem,) = task("olympiadbench", written(tmp_path, "jsonl", row)).problems()
    assert problem.question == "Let ABC be a triangle.\nFind its area."


def test_a_misspelt_column_is_named_with_its_place_and_the_nearest(tmp_path: Path) -> None:
    wrong = {**SVAMP, "Bodi": SVAMP["Body"]}
    del wrong["Body"]
    with pytest.raises(UserError) as error:
        task("svamp", written(tmp_path, "jsonl", SVAMP, {**wrong, "ID": "b"})).problems()
    assert "rows.jsonl:2: columns.question: no column 'Body'; did you mean 'Bodi'?" in str(error.value)


def test_a_row_without_an_answer_tells_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:1: no final answer: .*; there are: problem, gold"):
        task("aime25", written(tmp_path, "jsonl", {"problem": "Q", "gold": "1"})).problems()


def test_a_name_inside_a_column(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "1 + 1?"}], "reward_model": {"ground_truth": "2"}}
    columns = {"question": "prompt.0.content", "answer": "reward_model.ground_truth"}
    for kind in ("jsonl", "parquet"):
        path = str(written(tmp_path, kind, row))
        (problem,) = Task(name="t", path=path, columns=columns).problems()
        assert (problem.question, problem.answers) == ("1 + 1?", ("2",))
    with pytest.raises(
        UserError, match=r"no column 'reward_model\.truth'; did you mean 'reward_model\.ground_truth'\?"
    ):
        Task(name="t", path=path, columns={**columns, "answer": "reward_model.truth"}).problems()


def test_options_are_read_only_where_they_are_named(tmp_path: Path) -> None:
    row = {"question": "Q (A) 1 (B) 2", "options": ["A)1", "B)2"], "answer": "B"}
    (problem,) = Task(name="t", path=str(written(tmp_path, "jsonl", row))).problems()
    assert problem.question == row["question"]


def test_a_column_that_problems_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="problems have no 'anwser'; did you mean 'answer'"):
        Task(name="t", path="x", columns={"anwser": "gold"})
