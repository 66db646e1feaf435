"""The `official` grader: the behaviour measured with the paper's own code, line by line."""

from __future__ import annotations

import pytest

from stepdpo.core.types import CORRECT, UNPARSED, WRONG, Problem
from stepdpo.evaluation.graders.answers import official_answers
from stepdpo.evaluation.graders.latex import Odd, Unreadable, read
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.official_text import normalise

TABLE = [
    ("The answer is: 18 dollars", ["18"], WRONG),  # words are not stripped
    ("18 eggs.", ["18"], CORRECT),  # ... but without the phrase the last number counts
    ("The answer is: 18 eggs.", ["18"], WRONG),
    (r"\boxed{18 \text{ dollars}}", ["18"], CORRECT),
    (r"\boxed{90^\circ}", ["90"], CORRECT),
    (r"\boxed{$18}", ["18"], CORRECT),
    ("The answer is: 12,000", ["12000"], CORRECT),
    (r"\boxed{5 cm}", ["5"], WRONG),  # a unit goes only when last and in \text
    (r"\boxed{5\text{ cm}^2}", ["5"], WRONG),
    ("The answer is: 18\n\nStep 5: now check", ["18"], WRONG),  # the rest of the text is the answer
    (r"The answer is: 18 and \boxed{7}", ["18"], WRONG),  # a box outranks the phrase
    (r"\boxed{3} ... \boxed{18}", ["18"], CORRECT),  # the last box counts
    (r"\boxed{18} ... \boxed{3}", ["18"], WRONG),
    ("The answer is: 5000", ["50"], CORRECT),  # a factor of 100 either way
    ("The answer is: 0.5", ["50"], CORRECT),
    (r"\boxed{[3,4)}", ["(3,4]"], CORRECT),  # kinds of brackets are ignored
    ("The answer is: 0.0005", ["0"], CORRECT),  # absolute tolerance
    (r"\boxed{\text{Monday}}", [r"\text{Monday}"], WRONG),  # golds are not normalised
    (r"\boxed{information}", ["information"], WRONG),  # "inf" is rewritten
    (r"\boxed{1,2,3}", ["1", "2", "3"], WRONG),
    (r"\boxed{18", ["18"], UNPARSED),  # an unclosed box holds nothing
    (r"\boxed{x \in [1,2]}", ["[1,2]"], WRONG),  # the pattern has no blank
    (r"\boxed{x\in [1,2]}", ["[1,2]"], CORRECT),
]


@pytest.mark.parametrize(("response", "golds", "verdict"), TABLE)
def test_measured_behaviour(response: str, golds: list[str], verdict: str) -> None:
    grade = Official().grade(response, Problem("p", "", tuple(golds)))
    assert grade.verdict == verdict, grade


def test_a_list_needs_the_words_of_the_problem() -> None:
    question = "Enter the roots, separated by commas."
    assert Official().grade(r"\boxed{3,1,2}", Problem("p", question, ("1", "2", "3"))).verdict == CORRECT
    assert Official().grade(r"\boxed{1 \text{ and } 2}", Problem("p", "", ("2", "1"))).verdict == CORRECT


def test_every_gold_must_be_met_and_only_the_last_predictions_count() -> None:
    grade = Official().grade
    assert grade(r"\boxed{9}, \boxed{1} and \boxed{2}", Problem("p", "", ("2", "1"))).verdict == CORRECT
    assert grade(r"\boxed{1} and \boxed{1}", Problem("p", "", ("2", "1"))).verdict == WRONG


@pytest.mark.parametrize(
    ("response", "answers"),
    [
        ("The final answer is $4$. I hope it is correct. \\boxed{5}", ["4"]),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", ["1", r"\frac{1}{2}"]),
        (r"\boxed{28}%", ["28}"]),  # the published code keeps the brace before a percent sign
        ("The answer is 3. The answer is: 4.", ["4"]),
        ("```output\n17\n```", ["17"]),
        ("so 1,234 apples and -5.50", ["-5.50"]),
        ("no idea", []),
    ],
)
def test_first_rule_that_fires(response: str, answers: list[str]) -> None:
    assert [answer.strip() for answer in official_answers(response)] == answers


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\frac1{72}", r"\frac{1}{72}"),
        ("3/4", r"\frac{3}{4}"),
        (r"\sqrt3", r"\sqrt{3}"),
        (".5", "0.5"),
        ("5.0", "5"),
        (r"7\text{ miles}", "7"),
        (r"\text{Tuesday}", "Tuesday"),
        ("infinity", r"\infty"),
        ("2j", "2i"),
        (r"3 \cdot 4", "34"),
        (r"50\%", "50%"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("5{cm}^2", "5"),
    ],
)
def test_normalisation(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1,2", "1"),  # what follows a formula is ignored
        ("x(y)", "x(y)"),  # a letter before brackets is a function
        (r"2\frac{1}{2}", "1"),  # side by side is a product
        ("1/2x", "1/(2*x)"),
        ("10_2", "10"),
        ("x+(1,2)", "x"),
        ("1,000", "1000"),
        (r"\sin^2 x", "sin(x)**2"),
        (r"\log_2{8}", "3"),
        (r"\sqrt[3]{8}", "2"),
        ("1=2=3", "False"),
        (r"\lfloor 2.5\rfloor", "2"),
        ("x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(x(", "x"),
    ],
)
def test_reader_keeps_the_habits_of_the_original_parser(text: str, meaning: str) -> None:
    assert str(read(text)) == meaning


@pytest.mark.parametrize("text", ["(1,2)", r"\sqrt 2", "x_", "50%", "2.", "", "2==3", "5;6", r"\{1,2\}"])
def test_reader_refuses(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)
    assert issubclass(Odd, Unreadable)


def test_no_text_is_run_as_python(tmp_path) -> None:
    target = tmp_path / "x"
    attack = f"__import__('pathlib').Path('{target}').touch()"
    for response in (attack, f"The answer is: {attack}", rf"\boxed{{{attack}}}"):
        Official().grade(response, Problem("p", "", ("x+1",)))
    assert not target.exists()
