"""The step checker: right steps pass however they are worded, everything else is caught where it happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Problem
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import SPLITS, problems
from stepdpo.tinymath.working import gold_equations

PROBLEM = Problem(
    id="p",
    question="Tom has 13 pens. He buys 9 boxes with 30 pens in each. He sells 3 pens. How many pens does Tom have?",
    answers=("280",),
    solution=(
        "Let's think step by step.\nStep 1: The boxes hold 9 * 30 = 270 pens.\nStep 2: Tom has 13 + 270 = 283 pens.\n"
        "Step 3: Tom has 283 - 3 = 280 pens left.\nThe answer is: 280"
    ),
)
GOLD = [" 9 * 30 = 270.", " 13 + 270 = 283.", " 283 - 3 = 280.\nThe answer is: 280"]


def first_error(*steps: str) -> int | None:
    return TinymathChecker().first_error(PROBLEM, steps)


@pytest.mark.parametrize("split", SPLITS)
def test_every_gold_solution_and_every_beginning_of_it_is_right(split: str) -> None:
    checker = TinymathChecker()
    for problem in problems(split, 300):
        _, steps = split_steps(problem.solution)
        for count in range(len(steps) + 1):
            assert checker.first_error(problem, steps[:count]) is None


@pytest.mark.parametrize("split", SPLITS)
def test_one_changed_result_is_found_at_its_step(split: str) -> None:
    checker = TinymathChecker()
    for problem in problems(split, 100):
        _, steps = split_steps(problem.solution)
        for index, equation in enumerate(gold_equations(problem)):
            wrong = [*steps]
            wrong[index] = steps[index].replace(f"= {equation.result} ", f"= {equation.result + 1} ")
            assert checker.first_error(problem, wrong) == index


RIGHT = {
    "other words": (" So there are 9 * 30 = 270 in the boxes!", *GOLD[1:]),
    "swapped product": (" 30 * 9 = 270", *GOLD[1:]),
    "swapped sum": (GOLD[0], " 270 + 13 = 283", GOLD[2]),
    "two equations in one step": (" 9 * 30 = 270 and 13 + 270 = 283.", GOLD[2]),
    "restates known numbers": (" 9 boxes of 30 are 9 * 30 = 270 pens, so 270.", *GOLD[1:]),
    "answer with a stop": (*GOLD[:2], " 283 - 3 = 280.\nThe answer is: 280.\n"),
    "labels": ("Step 1: 9 * 30 = 270.\n", "Step 2: 13 + 270 = 283.\n", "Step 3:" + GOLD[2]),
    "nothing yet": (),
}
WRONG = {
    "arithmetic": ((" 9 * 30 = 280.", *GOLD[1:]), 0),
    "operation": ((GOLD[0], " 13 - 270 = 283."), 1),
    "true equation, wrong operation": ((GOLD[0], " 13 * 270 = 3510."), 1),
    "true equation, wrong operand": ((GOLD[0], " 13 + 30 = 43."), 1),
    "swapped difference": ((*GOLD[:2], " 3 - 283 = 280.\nThe answer is: 280"), 2),
    "result not yet known": ((" 13 + 270 = 283.", *GOLD), 0),
    "same step twice": ((GOLD[0], GOLD[0]), 1),
    "answer too early": ((GOLD[0] + "\nThe answer is: 270",), 0),
    "answer missing": ((*GOLD[:2], " 283 - 3 = 280."), 2),
    "answer differs": ((*GOLD[:2], " 283 - 3 = 280.\nThe answer is: 281"), 2),
    "text after the answer": ((*GOLD[:2], GOLD[2] + "\nThe end"), 2),
    "a step too many": ((*GOLD, " 280 + 1 = 281.\nThe answer is: 281"), 3),
    "no equation": ((" There are 270.",), 0),
    "prose contradicts": ((" 9 * 30 = 270, so Tom has 271.",), 0),
    "chain": ((" 9 * 30 = 270 + 13 = 283.",), 0),
    "chained on the left": ((" 3 + 9 * 30 = 270.",), 0),
    "trailing equals": ((" 9 * 30 = 270 = 271.",), 0),
    "leading nought": ((" 09 * 30 = 270.",), 0),
    "decimals": ((" 9 * 30 = 270.5.",), 0),
    "negative": ((" 9 * 30 = -270.",), 0),
    "unfinished number": ((" 9 * 30 = 27",), 0),
    "empty": (("",), 0),
    "huge": ((" 9 * 30 = " + "9" * 9999,), 0),
    "garbage": (("\\boxed{} \x00 = = *",), 0),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert first_error(*RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    steps, index = WRONG[name]
    assert first_error(*steps) == index


def test_independent_equations_may_come_in_another_order() -> None:
    """A product of the question's own numbers does not wait for the running total."""
    solution = " 5 + 6 = 11. 2 * 7 = 14. 11 + 14 = 25."
    problem = Problem("p", "5 6 2 7", ("25",), solution="Step 1:" + solution)
    last = " 11 + 14 = 25\nThe answer is: 25"
    assert TinymathChecker().first_error(problem, [" 2 * 7 = 14", " 5 + 6 = 11", last]) is None
    assert TinymathChecker().first_error(problem, [" 2 * 7 = 14", last]) == 1


def test_a_problem_without_working_is_refused() -> None:
    with pytest.raises(ValueError, match="no equations"):
        TinymathChecker().first_error(Problem("p", "q", ("1",)), [" 1 + 1 = 2"])


@given(st.lists(st.text(alphabet="0123456789 =+-*/.\n" + "The answer is:"), max_size=4))
def test_no_text_breaks_it(steps: list[str]) -> None:
    found = first_error(*steps)
    assert found is None or 0 <= found < len(steps)
