"""Names of columns: plain, inside others, put together; options of a choice."""

from __future__ import annotations

from typing import Any

import pytest

from stepdpo.data.choices import ASKED, with_options
from stepdpo.data.columns import NoColumn, cell, missing, outermost
from stepdpo.data.fields import RowError

ROW: dict[str, Any] = {
    "Body": "Tom has 3 cups.", "Question": "How many?", "a.b": 1, "a": {"b": 2, "c": {"d": None}},
    "steps": ["one", "two"], "turns": [{"content": "Q"}], "none": None, "{odd}": "own name", "n": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Body", "Tom has 3 cups."),
        ("a.b", 1),  # a column of just that name comes first
        ("a.c.d", None),
        ("a.c.e", None),
        ("steps.1", "two"),
        ("steps.2", None),
        ("steps.-1", None),
        ("turns.0.content", "Q"),
        ("{Body} {Question}", "Tom has 3 cups. How many?"),
        ("{none}\n{Question}", "How many?"),
        ("{steps}", "one\ntwo"),
        ("{turns.0.content}: {n}", "Q: 4"),
        ("{none} is nothing", None),
        ("{odd}", "own name"),
        ("nowhere", None),
    ],
)
def test_what_a_name_reads(name: str, value: Any) -> None:
    assert cell(ROW, name) == value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Bodi", "no column 'Bodi'; did you mean 'Body'?"),
        ("{Body} {Questoin}", "no column 'Questoin'; did you mean 'Question'?"),
        ("a.c.e", "no column 'a.c.e'; did you mean 'a.c.d'?"),
        ("{turns.0.text}", "no column 'turns.0.text'; did you mean"),
        ("a.c.d", ""),
        ("{none}", ""),
    ],
)
def test_what_is_missing_is_told_with_the_nearest(name: str, said: str) -> None:
    assert missing(ROW, name).startswith(said)
    assert bool(missing(ROW, name)) is bool(said)


def test_half_a_text_is_refused() -> None:
    with pytest.raises(NoColumn, match="no column 'Boby'"):
        cell(ROW, "{Boby} {Question}")


def test_the_columns_that_a_name_reads() -> None:
    assert {"Body", "a"} <= set(outermost("{Body} {a.b}"))


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["A)21", "B)21.5", "C)22"], "B", "B"),
        (["(A) 21", "(B) 21.5", "(C) 22"], "(C)", "C"),
        (["21", "21.5", "22"], "a", "A"),
        (["21", "21.5", "22"], "22", "C"),
        (["21", "21.5", "22"], "2", "C"),  # a place, as no option is that text
        (["0", "4", "2"], 2, "C"),  # a number is a place
        ({"text": ["21", "22"], "label": ["1", "2"]}, "2", "2"),
        ({"text": ["21", "22"], "label": ["A", "B"]}, "B", "B"),
    ],
)
def test_the_letter_of_the_right_option(options: Any, answer: Any, letter: str) -> None:
    question, found = with_options("Which?", options, answer)
    assert found == letter
    assert question.startswith(f"Which?\n{ASKED}\n(")
    assert "A)" not in question.replace("(A)", "")


def test_options_are_shown_with_one_kind_of_letter() -> None:
    shown = f"Q\n{ASKED}\n(A) 1\n(B) 2"
    assert with_options("Q", ["A)1", "B) 2"], "A") == (shown, "A")
    assert with_options("Q", ["1", "2"], "A") == (shown, "A")
    # Letters that do not follow one another are text.
    assert with_options("Q", ["C) 1", "2"], "A")[0].endswith("(A) C) 1\n(B) 2")


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        (["1", "2"], "F", "names none of A, B"),
        (["1", "1"], "1.0", "names none"),
        (["4", "4"], "4", "names more than one"),
        (["1", "0"], "1", "names more than one"),  # the text of the first, the place of the second
        ("1, 2", "A", "expected a list of 2 to 26 texts"),
        (None, "A", "expected a list of 2 to 26 texts"),
        (["1"], "A", "expected a list of 2 to 26 texts"),
    ],
)
def test_an_answer_that_names_no_option_is_a_bad_row(options: Any, answer: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        with_options("Q", options, answer)
