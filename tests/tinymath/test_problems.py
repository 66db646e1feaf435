"""The miniature's problems: their form, their splits, and that they never change."""

from __future__ import annotations

import hashlib
import re

import pytest

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Problem
from stepdpo.tinymath.problems import SPLITS, owner, problems

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def fingerprint(found: list[Problem]) -> str:
    return hashlib.sha256("\n".join(p.question + p.solution for p in found).encode()).hexdigest()[:16]


@pytest.mark.parametrize("split", SPLITS)
def test_a_solution_has_the_step_dpo_form(split: str) -> None:
    for problem in problems(split, 300):
        head, steps = split_steps(problem.solution)
        assert head == "Let's think step by step.\n"
        assert 2 <= len(steps) <= 6
        assert [step.split(":")[0] for step in steps] == [f"Step {k}" for k in range(1, len(steps) + 1)]
        assert problem.solution.endswith(f"\nThe answer is: {problem.answers[0]}")


def test_every_step_holds_one_true_equation_on_whole_numbers() -> None:
    for problem in problems("train", 500):
        _, steps = split_steps(problem.solution)
        for step in steps:
            ((left, sign, right, result),) = EQUATION.findall(step)
            a, b, c = int(left), int(right), int(result)
            assert {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": a == b * c}[sign]
        assert result == problem.answers[0]


def test_every_number_of_the_working_is_given_or_worked_out() -> None:
    for problem in problems("train", 300):
        known = set(re.findall(r"\d+", problem.question))
        for left, _, right, result in EQUATION.findall(problem.solution):
            assert {left, right} <= known
            known.add(result)


def test_splits_share_no_question_whatever_the_seeds() -> None:
    sets = {(split, seed): {p.question for p in problems(split, 400, seed)} for split in SPLITS for seed in (0, 1)}
    assert all(owner(question) == split for (split, _), questions in sets.items() for question in questions)
    assert all(len(questions) == 400 for questions in sets.values())
    assert sets["train", 0] != sets["train", 1]


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert problems("test", 50)[:20] == problems("test", 20)
    assert problems("test", 0) == []


def test_names_tell_split_place_and_seed() -> None:
    assert problems("test", 13)[12].id == "tinymath-test-000012"
    assert problems("train", 1, seed=3)[0].id == "tinymath-train-seed3-000000"


def test_meta_describes_the_working() -> None:
    problem = problems("test", 1)[0]
    assert problem.meta["steps"] == len(problem.meta["operations"]) == len(split_steps(problem.solution)[1])


def test_all_four_operations_are_common() -> None:
    signs = "".join(p.meta["operations"] for p in problems("train", 500))
    assert all(signs.count(sign) > 100 for sign in "+-*/")


def test_the_problems_never_change() -> None:
    """A changed fingerprint means that every shipped checkpoint and published figure belongs to other problems."""
    assert {split: fingerprint(problems(split, 100)) for split in SPLITS} == FINGERPRINTS


@pytest.mark.parametrize(("split", "count"), [("dev", 1), ("test", -1)])
def test_bad_requests_are_refused(split: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"split|count"):
        problems(split, count)


FINGERPRINTS = {
    "train": "4ee9972f811c824d",
    "preference": "dcb75aed9f0ef56a",
    "heldout": "4d71319aee129d06",
    "test": "bdb6da2ca3367e0e",
}
