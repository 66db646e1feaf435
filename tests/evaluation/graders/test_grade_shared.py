"""Agreement with other people's labels, measured on the data kept beside the repository."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from stepdpo.core.types import CORRECT, Problem
from stepdpo.evaluation.graders.answers import gold_answer
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pool import GradeMany
from stepdpo.evaluation.graders.strict import Strict

pytestmark = pytest.mark.shared
Rows = Callable[[str], list[dict[str, Any]]]
ON_PURPOSE = {
    "math_verify": {31, 32, 133, 139, 187, 217, 253, 263},
    "hendrycks": {1, 8},
}
"""Rows on which `strict` holds another opinion; docs/grading.md gives the reason for each."""


@pytest.mark.parametrize("name", sorted(ON_PURPOSE))
def test_agreement_with_published_cases(name: str, shared_rows: Rows, grade_many: GradeMany) -> None:
    rows = shared_rows(f"grader_cases_{name}.jsonl")
    grades = grade_many([(row["prediction"], Problem("p", "", (row["gold"],))) for row in rows], Strict())
    pairs = enumerate(zip(rows, grades, strict=True))
    assert {i for i, (row, grade) in pairs if (grade.verdict == CORRECT) != row["expected"]} == ON_PURPOSE[name]


@pytest.mark.parametrize(
    ("name", "column"), [("gsm8k_test", "answer"), ("gsm8k_train", "answer"), ("math_test", "solution")]
)
def test_every_gold_solution_is_right(name: str, column: str, shared_rows: Rows, grade_many: GradeMany) -> None:
    solutions = [row[column] for row in shared_rows(f"{name}.jsonl")]
    grades = grade_many([(text, Problem("p", "", (gold_answer(text),))) for text in solutions], Strict())
    assert [grade for grade in grades if grade.verdict != CORRECT] == []


def _respelled(answer: str) -> str:
    return answer.replace(r"\frac", r"\dfrac").replace("(", r"\left( ").replace(")", r" \right)").replace("+", " + ")


def test_golds_spelled_otherwise_are_right_and_other_golds_wrong(shared_rows: Rows, grade_many: GradeMany) -> None:
    rows = shared_rows("math500_test.jsonl")
    respelled = [(f"The answer is ${_respelled(r['answer'])}$.", Problem("p", "", (r["answer"],))) for r in rows]
    assert [grade for grade in grade_many(respelled, Strict()) if grade.verdict != CORRECT] == []
    others = [row["answer"] for row in rows]
    random.Random(0).shuffle(others)
    swapped = [(rf"\boxed{{{o}}}", Problem("p", "", (r["answer"],))) for o, r in zip(others, rows, strict=True)]
    right = [
        item for item, grade in zip(swapped, grade_many(swapped, Strict()), strict=True) if grade.verdict == CORRECT
    ]
    assert all(response[7:-1].rstrip("%\\") == problem.answers[0].rstrip("%\\") for response, problem in right)


def test_real_solutions_of_gsm8k(shared_rows: Rows, grade_many: GradeMany) -> None:
    rows = shared_rows("gsm8k_step_pairs.jsonl")
    for grader in (Strict(), Official()):
        for column, share in (("full_chosen", 1.0), ("full_rejected", 0.0)):
            items = [(row[column], Problem("p", row["prompt"], (row["answer"],))) for row in rows]
            right = sum(grade.verdict == CORRECT for grade in grade_many(items, grader)) / len(items)
            assert abs(right - share) < 0.01
