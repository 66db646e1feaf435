"""Which responses to one problem give the same final answer, in the eyes of the strict grader."""

from __future__ import annotations

from collections.abc import Sequence

from stepdpo.core.types import CORRECT, Problem
from stepdpo.evaluation.graders.answers import Found, find_answer
from stepdpo.evaluation.graders.normalise import normalise
from stepdpo.evaluation.graders.pending import LONGEST
from stepdpo.evaluation.graders.pool import GradeMany
from stepdpo.evaluation.graders.strict import Strict


def answer_groups(responses: Sequence[Sequence[str]], grade_many: GradeMany) -> list[list[int | None]]:
    """Of each problem's responses the number of the first that gives the same final answer; None without an answer.

    Answers that are written alike once normalised are the same; so are those that the strict grader finds right where
    the other is the gold answer (1/2 and 0.5).
    """
    found = [[find_answer(text) for text in some] for some in responses]
    written = [[_written(one) for one in some] for some in found]
    firsts = [_firsts(some) for some in written]
    # Every two answers of a problem that are written differently, of all problems in one call: a later one joins the
    # earliest that it equals, so that the order of responses alone decides where "the same" should not be transitive.
    asked = [
        (problem, early, late)
        for problem, some in enumerate(firsts)
        for late in some.values()
        for early in some.values()
        if early < late
    ]
    items = [
        (responses[problem][late], Problem("", "", (_text(found[problem][early]),))) for problem, early, late in asked
    ]
    grades = grade_many(items, Strict()) if items else []
    joined: list[dict[int, int]] = [{} for _ in responses]
    for (problem, early, late), grade in zip(asked, grades, strict=True):
        if grade.verdict == CORRECT and late not in joined[problem] and early not in joined[problem]:
            joined[problem][late] = early
    return [
        [None if one is None else joined[problem].get(firsts[problem][one], firsts[problem][one]) for one in some]
        for problem, some in enumerate(written)
    ]


def _text(found: Found | None) -> str:
    return found.text if found else ""


def _written(found: Found | None) -> str | None:
    if found is None:
        return None
    return normalise(found.text) if len(found.text) <= LONGEST else found.text


def _firsts(written: Sequence[str | None]) -> dict[str, int]:
    """Each answer as it is written, with the number of the first response that gives it; in their order."""
    first: dict[str, int] = {}
    for number, answer in enumerate(written):
        if answer is not None:
            first.setdefault(answer, number)
    return first
