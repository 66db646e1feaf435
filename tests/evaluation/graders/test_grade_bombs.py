"""Answers made to hang, crash or fill the memory: graded wrong in bounded time, and the next one is fine."""

from __future__ import annotations

import time

import pytest

from stepdpo.core.types import CORRECT, Problem
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pool import SECONDS, SHARE
from stepdpo.evaluation.graders.strict import Strict

LATE = [
    r"10^{10^{10}}",
    r"9^{9^{9^9}}",
    r"(10^8)!",
    r"2^{2^{2^{2^{2^2}}}}",
    r"10^{-10^{10}}",
    r"\binom{10^9}{5\cdot 10^8}",
    r"((((((((((x+1)^{100})^{100})^{100})^{100})^{100})))))",
    r"(10^6)!!",
    r"7^{7^{7^7}} \mod 10",
]
QUICK = [
    r"\sum_{k=1}^{1000000000000} \frac{1}{k^2}",
    "(" * 3000 + "1" + ")" * 3000,
    r"\boxed{" * 2000,
    r"\frac{1}{x+1}" * 8000,
    r"\int x^{x^x} dx",
    r"\prod_{k=1}^{10^9} k",
    "(x+y+z)^{300}-1",
    r"\sqrt{" * 500 + "2" + "}" * 500,
    r"\frac{1}{" * 300 + "2" + "}" * 300,
    "9" * 20000,
    "1+" * 9000 + "1",
    "1," * 300 + "2",
    "{" * 5000,
    "}" * 5000,
    r"\[ " * 20000,
    "$" * 20001,
    "the answer is " * 5000,
    "answer: \n" * 5000,
    r"\text{" * 3000,
    "\\" * 20000,
    " " * 20000 + "1",
    "\\\n" * 10000,
    "-" * 20000 + "1",
    "a" * 19000,
    "|" * 999,
    "x" + "!" * 500,
    r"\boxed{x} and " * 2000,
    "\x00\x01\ud800",
    r"\boxed{" + "\ud83d" + "}",
    "0^{0^{0}}",
    "1/0",
    r"\frac{1}{0}",
    "nan",
    "1e999999999",
    r"\infty-\infty",
]
GRADERS = [Strict(), Official()]


def _grade(grader: Strict | Official, bomb: str) -> None:
    for response in (bomb, f"The answer is: {bomb}", rf"\boxed{{{bomb}}}"):
        start, worked = time.monotonic(), time.process_time()
        grade = grader.grade(response, Problem("p", "", ("x+1",)))
        assert time.process_time() - worked < 5.0  # ours, in which no kernel stops us
        assert time.monotonic() - start < SECONDS * SHARE
        assert grade.verdict != CORRECT


@pytest.mark.parametrize("grader", GRADERS, ids=["strict", "official"])
@pytest.mark.parametrize("bomb", QUICK, ids=range(len(QUICK)))
def test_awkward_answers(grader: Strict | Official, bomb: str) -> None:
    _grade(grader, bomb)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("grader", GRADERS, ids=["strict", "official"])
@pytest.mark.parametrize("bomb", LATE)
def test_answers_that_never_end(grader: Strict | Official, bomb: str) -> None:
    _grade(grader, bomb)
    assert grader.grade("The answer is: (x+1)^2", Problem("p", "", ("x^2+2x+1",))).verdict == CORRECT


def test_one_bomb_stays_in_the_default_run() -> None:
    grade = Strict().grade(r"\boxed{10^{10^{10}}}", Problem("p", "", ("4",)))
    assert grade.reason == "box; timeout"
