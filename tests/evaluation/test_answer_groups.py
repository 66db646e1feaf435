"""Equal answers are one, however they are written."""

from stepdpo.evaluation.answer_groups import answer_groups
from stepdpo.evaluation.graders.pool import graders


def test_equal_answers_have_one_number() -> None:
    first = [
        "The answer is: 1/2",
        "I do not know what to do",
        "The answer is: 7",
        r"So \boxed{0.5}",
        r"\boxed{7.0}",
        "The answer is: 1/2.",
    ]
    second = ["The answer is: 0.5", "The answer is: 9"]
    with graders() as grade_many:
        found = answer_groups([first, second, []], grade_many)
    assert found == [[0, None, 2, 0, 2, 0], [0, 1], []]
