"""The grader behind the numbers of the Step-DPO paper (Lai et al. 2024, arXiv 2406.18629), faults included."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stepdpo.core.types import Grade, Problem
from stepdpo.evaluation.graders.answers import official_answers
from stepdpo.evaluation.graders.logic import unknown
from stepdpo.evaluation.graders.official_equal import match
from stepdpo.evaluation.graders.official_text import normalise
from stepdpo.evaluation.graders.pending import Comparison, Pending, settle
from stepdpo.evaluation.graders.pool import compare

AND = re.compile(r"\\text\{\s*and\s*\}")


@dataclass(frozen=True)
class Official:
    """Grade as the paper's evaluation does; use it to compare with published numbers, and `Strict` to know.

    Its known faults are kept: numbers may be off by a factor of 100, bracket kinds are ignored, text after "the answer
    is" counts as part of the answer, and gold answers are not normalised.
    """

    def grade(self, response: str, problem: Problem) -> Grade:
        """Grade one response; formulas are compared in a shared worker, in bounded time."""
        examined = self.examine(response, problem)
        return examined if isinstance(examined, Grade) else examined.grade(compare(examined.comparison))

    def examine(self, response: str, problem: Problem) -> Grade | Pending:
        """The grade, as far as strings and numbers decide it."""
        golds = tuple(dict.fromkeys(problem.answers))
        # The published code's exception for matrices: doubled backslashes are taken for single ones.
        if "The answer is:" in response and len(golds) == 1 and r"\begin{pmatrix}" in golds[0]:
            golds, response = (golds[0].replace("\\\\", "\\"),), response.replace("\\\\", "\\")
        predictions: list[str] = []
        for answer in official_answers(response):
            predictions += _several(normalise(answer), problem.question)
        # With n golds the last n answers count: earlier boxes are results of steps.
        last = list(dict.fromkeys(predictions))[-len(golds) :]
        comparison = Comparison("official", tuple(last), golds)
        return settle(comparison, "official rules", lambda p, g: match(p, g, unknown))


def _several(answer: str, question: str) -> list[str]:
    """An answer that lists several, by the paper's two rules for that."""
    if "separated by commas" in question and not any(bracket in answer for bracket in "()[]"):
        return [part.strip() for part in answer.split(",")]
    return [part.strip() for part in AND.split(answer)]
