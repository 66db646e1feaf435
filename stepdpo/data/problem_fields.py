"""Problems in the columns that mathematics data sets commonly have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stepdpo.data.fields import RowError, RowFields

COLUMNS = ("question", "problem", "instruction", "input", "answers", "answer", "solution", "output")
_QUESTION = ("question", "problem", "instruction")
_SOLUTION = ("solution", "output")
_ANSWER = ("answers", "answer")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class StatedProblem:
    """A problem as a row states it."""

    question: str
    answers: tuple[str, ...]
    """Empty when the row names none."""
    solution: str
    """Gold working with its final answer, verbatim; empty when the row has none."""


def read_problem(cells: RowFields) -> StatedProblem:
    r"""Question, gold answers and gold working of a row.

    Alpaca's `instruction` with an `input` is asked as both, a line each, as everyone joins them.
    The answer is, in this order: what follows the last `####` of `answer` (GSM8K); the column `answers` or
    `answer`; the last balanced `\boxed{}` of `solution` or `output`.
    """
    column = next((c for c in _QUESTION if cells.has(c)), _QUESTION[0])
    question = cells.text(column)
    if column == "instruction" and (given := cells.text("input", "")).strip():
        question = f"{question}\n{given}"
    working = next((cells.text(c, "") for c in _SOLUTION if cells.has(c)), "")
    # What a data set states comes before what is found in text; its own mark (`####`) before a box in the working.
    stated = cells.answers("answers") or cells.answers("answer")
    if len(stated) == 1 and "####" in stated[0]:
        gold = stated[0].rpartition("####")[2].strip()
        return StatedProblem(question, _given((_plain_number(gold),)), working or cells.text("answer"))
    if not stated:
        stated = (last_box(working),)
    return StatedProblem(question, _given(stated), working)


def passed_over(cells: RowFields) -> Iterator[tuple[str, str]]:
    """(a column that is not read, the one of its kind that is read in its place)."""
    for kind in (_QUESTION, _SOLUTION, _ANSWER):
        used, *others = [column for column in kind if cells.has(column)] or [""]
        yield from ((column, used) for column in others)


def require_answer(stated: StatedProblem, cells: RowFields) -> StatedProblem:
    """RowError when there is nothing to compare a response with."""
    if not stated.answers:
        raise RowError(
            r"no final answer: neither a column 'answer', nor '####' in it, nor \boxed{} in 'solution'; there are: "
            + ", ".join(map(str, cells.values))
        )
    return stated


def last_box(text: str) -> str:
    r"""The content of the last `\boxed{...}` or `\fbox{...}` with balanced braces (`\boxed 5` is 5), or empty."""
    # A pattern cannot count braces, so it only finds where a box opens.
    for match in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*(\{|[^\s{}$]+)", text))):
        if match[1] != "{":
            return match[1]
        end = _closing_brace(text, match.end())
        if end >= 0:
            return text[match.end() : end].strip()
    return ""


def _closing_brace(text: str, start: int) -> int:
    depth, escaped = 1, False
    for at in range(start, len(text)):
        character = text[at]
        if escaped or character == "\\":
            escaped = not escaped
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return at
    return -1


def _given(answers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(answer for answer in answers if answer)


def _plain_number(text: str) -> str:
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
