"""The `strict` grader: hand-labelled pairs, and the rules that find an answer."""

from __future__ import annotations

import pytest

from stepdpo.core.types import CORRECT, UNPARSED, WRONG, Problem
from stepdpo.evaluation.graders.answers import find_answer, gold_answer
from stepdpo.evaluation.graders.normalise import normalise, split_list
from stepdpo.evaluation.graders.numbers import same_number
from stepdpo.evaluation.graders.pool import GradeMany
from stepdpo.evaluation.graders.strict import Strict

SAME = [
    (r"\boxed{3} ... wait, \boxed{2}", "2"),
    ("Friday", r"\text{Friday}"),
    ("A", r"\text{(A)}"),
    (r"\boxed{\text{(A)}}", "A"),
    ("(A)", r"\text{A}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)"),
    ("(1,2)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\boxed{−5}", "-5"),
    ("1.0e3", "1000"),
    (r"\boxed{5 cm}", "5"),
    (r"\boxed{5\text{ cm}^2}", "5"),
    ("The answer is: 18 dollars", "18"),
    ("The answer is: 18 eggs.", "18"),
    ("The answer is: 18\n\nStep 5: 3 + 4 = 7", "18"),
    (r"\boxed{18 \text{ dollars}}", "18"),
    (r"\boxed{90^\circ}", "90"),
    (r"\boxed{\$18}", "18"),
    (r"\boxed{$18}", "18"),
    ("12,000", "12000"),
    (r"\boxed{\text{Monday}}", r"\text{Monday}"),
    (r"\boxed{information}", "information"),
    (r"\boxed{1,2,3}", "3,1,2"),
    (r"x \in [1,2]", "[1,2]"),
    ("50%", "50"),
    ("50%", "0.5"),
    ("50", "50%"),
    ("0.5", "50%"),
    (r"\{1,2\}", "1,2"),
    ("x=5", "5"),
    ("5", "x=5"),
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac12"),
    ("0.333333", r"\frac13"),
    ("yes", "Yes"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    ("3x+2", "2+3x"),
    (r"(-\infty, 3)", "x<3"),
    ("x<3", r"(-\infty,3)"),
    (r"3<x\le 5", "(3,5]"),
    ("7:30 pm", "7:30 p.m."),
    (r"\$5.00", "5"),
    ("1,234.50", "1234.5"),
    (r"1\frac12", "1.5"),
    ("1 1/2", r"\frac32"),
    ("-1 1/2", r"-\frac32"),
    ("2^{10}", "1024"),
    ("10^{-3}", "0.001"),
    (r"1.2\times10^3", "1200"),
    (r"6.02 \times 10^{23}", r"6.02\cdot 10^{23}"),
    ("2 or 3", "3, 2"),
    (r"\pm 3", "3,-3"),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"),
    ("y = 2x + 1", "2x - y + 1 = 0"),
    ("y=2x+1", "2x+1"),
    ("#### 42", "42"),
    ("He has 3 apples and buys 4, so 7 apples in all.\n#### 7", "7"),
    ("So he has 3 + 4 = 7 apples", "7"),
    ("**Answer:** 42", "42"),
    (r"The final answer is $\boxed{42}$.", "42"),
    (r"Answer: $\frac{3}{4}$", "0.75"),
    ("The answer is 5 because 2+3=5 and 6-1=5", "5"),
    ("The answer is\n\n\\[ \\frac{3}{4} \\]\n", "3/4"),
    ("The answer is $x = 4$ or $x = 5$.", "4,5"),
    ("The answer is (C) 15.", r"\text{(C)}"),
    ("2+3i", "3i+2"),
    (r"\boxed{204_5}", "204_{5}"),
    (r"\boxed{\frac{3}{4}\text{ cups}}", "3/4"),
    ("0.999999999", "1"),
    (r"\emptyset", r"\varnothing"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    ("no solution", r"\text{No solution}"),
    (r"\boxed{x^2+2x+1}", "(x+1)^2"),
    (r"\frac{x}{2}", "0.5x"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\log_2 8", "3"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    ("|{-3}|", "3"),
    (r"\lfloor 2.5\rfloor", "2"),
    ("a=1,b=2", "b=2,a=1"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    (r"[0,1)\cup(2,3]", r"(2,3]\cup[0,1)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    ("The total is $18 per day and $9 left.", "9"),
    ("It costs $5.", "5"),
    ("$5", "5"),
    ("€5", "5"),
    ("10 minutes", "10"),
    ("10 miles per hour", "10"),
    (r"x \ge 3", r"[3,\infty)"),
    ("1 : 2", "1:2"),
    ("2:4", "1:2"),
    ("3 - 2", "1"),
    ("-(x-1)", "1-x"),
    (r"\frac{-1}{2}", r"-\frac{1}{2}"),
    ("1e-3", "0.001"),
    (".5", "0.5"),
    ("5.", "5"),
    ("05", "5"),
    ("+5", "5"),
    ("- 5", "-5"),
    (r"\text{June 20}", "June 20"),
    (r"\text{east}", "East"),
    (r"10\text{ in the morning}", "10"),
    ("x^2y", "yx^2"),
    (r"e^{i\pi}", "-1"),
    ("AB", "BA"),
    (r"\sqrt[3]{8}", "2"),
    (r"10^{-1} \text{ m}", "0.1"),
    ("<think>5</think> The answer is 6", "6"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"$$\boxed{5}$$ is the number of dogs; there are 8 cats", "5"),
    ("\\boxed{7}<|im_end|>\n<|im_start|>user\nnext \\boxed{8}", "7"),
    (r"\boxed{3\text{ or }4}", "4,3"),
    ("The answers are 3 and 4.", "3,4"),
    (r"\boxed{\text{A, C}}", "A,C"),
    ("0.1+0.2", "0.3"),
]
DIFFERENT = [
    (r"\boxed{3} ... wait, \boxed{2}", "3"),
    ("B", r"\text{(A)}"),
    (r"The answer is: 18 and \boxed{7}", "18"),
    ("5000", "50"),
    ("0.5", "50"),
    ("[3,4)", "(3,4]"),
    ("0.0005", "0"),
    ("5%", "50%"),
    ("[1,2]", "(1,2)"),
    (r"\{1,2\}", "(1,2)"),
    ("(2,1)", "(1,2)"),
    ("x=5", "y=5"),
    ("0.333", r"\frac13"),
    ("3.14", r"\pi"),
    ("cat", "act"),
    (r"\text{cat}", r"\text{act}"),
    ("Yes", "No"),
    ("3X+2", "3x+2"),
    ("3t", "3s"),
    ("5h", "5"),
    ("5m", "5"),
    ("12:00", "1:00"),
    ("three", "3"),
    ("1, 2", "1"),
    ("1", "1, 2"),
    ("3", r"\pm 3"),
    ("", "5"),
    ("I do not know", "5"),
    ("i", "-i"),
    ("1000000.4", "1000000"),
    ("100000000001", "100000000000"),
    ("(1,2),(4,3)", "(3,4),(1,2)"),
    (r"[0,1]\cup(2,3]", r"(2,3]\cup[0,1)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\4&3\end{bmatrix}"),
    ("5 km", "5000 m"),
    ("2 hours 30 minutes", "2.5"),
    ("June 20", r"\text{June 21}"),
    (r"\frac{2\pi}{3}", r"120^\circ"),
    (r"\boxed{}", "5"),
    ("1,000", "1"),
    ("1, 000", "1000"),
]


def _verdicts(grade_many: GradeMany, pairs: list[tuple[str, str]]) -> list[str]:
    items = [(response, Problem("p", "", (gold,))) for response, gold in pairs]
    return [grade.verdict for grade in grade_many(items, Strict())]


def test_pairs_that_mean_the_same(grade_many: GradeMany) -> None:
    verdicts = _verdicts(grade_many, SAME)
    assert [pair for pair, verdict in zip(SAME, verdicts, strict=True) if verdict != CORRECT] == []


def test_pairs_that_differ(grade_many: GradeMany) -> None:
    verdicts = _verdicts(grade_many, DIFFERENT)
    assert [pair for pair, verdict in zip(DIFFERENT, verdicts, strict=True) if verdict == CORRECT] == []


@pytest.mark.parametrize(
    ("response", "answer", "rule"),
    [
        (r"so \boxed{7}, not \boxed{8", "7", "box"),
        (r"\boxed{3}. Wait, \boxed{2}", "2", "box"),
        (r"\boxed{3} ... \boxed{18}", "18", "box"),
        (r"$\boxed{3}$. $\boxed{18}$", "18", "box"),
        (r"$\boxed{1}$, $\boxed{2}$", "1, 2", "box"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2", "box"),
        (r"x = \boxed{3} and therefore \boxed{5}", "5", "box"),
        (r"\boxed{\frac{1}{2}} is my answer: nice", r"\frac{1}{2}", "box"),
        (r"\boxed{28}\%", r"28\%", "box"),
        (r"\boxed{255}. The final answer is $10$. I hope it is correct.", "10", "hope"),
        ("The answer is 4. No: the answer is 5.\nGoodbye 6", "5", "phrase"),
        ("The answer is: $x = 2$, because 3 > 2", "x = 2", "phrase"),
        ("The answer is 3.14. Done", "3.14", "phrase"),
        ("4 + 4 = 8\n#### 8", "8", "hashes"),
        ("$x=3$", "x=3", "bare"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "bare"),
        ("She pays $3 for each of 4 and has $12", "12", "last"),
        (r"Hence $x \ge 5$ solves it.", r"x \ge 5", "last"),
    ],
)
def test_where_the_answer_is_found(response: str, answer: str, rule: str) -> None:
    found = find_answer(response)
    assert found is not None
    assert (found.text.lstrip("$"), found.rule) == (answer, rule)


@pytest.mark.parametrize(
    "response", ["", "   ", r"so it is \boxed{18", "I am afraid that I cannot solve this problem."]
)
def test_nothing_to_find(response: str) -> None:
    assert Strict().grade(response, Problem("p", "", ("18",))).verdict == UNPARSED


@pytest.mark.parametrize(
    ("solution", "answer"),
    [("2 + 2 = <<2+2=4>>4\n#### 4", "4"), (r"Thus $\boxed{x+1}$.", "x+1"), ("-2,1", "-2,1"), ("east", "east")],
)
def test_gold_answers(solution: str, answer: str) -> None:
    assert gold_answer(solution) == answer


def test_all_golds_must_be_given() -> None:
    problem = Problem("p", "", ("1", "2"))
    assert Strict().grade(r"\boxed{2, 1}", problem).verdict == CORRECT
    assert Strict().grade(r"\boxed{1}", problem).verdict == WRONG
    assert Strict().grade(r"\boxed{1}", Problem("p", "", ())).verdict == WRONG


def test_grade_says_why() -> None:
    grade = Strict().grade(r"\boxed{\dfrac12}", Problem("p", "", ("0.5",)))
    assert (grade.verdict, grade.extracted, grade.reason) == (CORRECT, r"\frac{1}{2}", "box; equal")


@pytest.mark.parametrize(
    ("text", "normal"),
    [(r"\text{(A)}", "A"), ("1,234,567", "1234567"), (r"12{,}000", "12000"), ("5 square feet", "5"), ("1.5e3", "1500")],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_lists_are_split_at_their_top_level() -> None:
    assert split_list("(1,2), [3,4)") == ["(1,2)", "[3,4)"]
    assert split_list("1;2,3") == ["1", "2,3"]


def test_percent_is_a_unit_or_a_hundredth_but_never_a_guess() -> None:
    assert same_number("50%", "50")
    assert same_number("50%", "0.5")
    assert same_number("50", "0.5") is False
    assert same_number("x", "0.5") is None
