"""The grader to trust: one normalisation for gold and prediction, and Math-Verify for formulas."""

from __future__ import annotations

from dataclasses import dataclass

from stepdpo.core.types import UNPARSED, Grade, Problem
from stepdpo.evaluation.graders.answers import find_answer, gold_answer
from stepdpo.evaluation.graders.equivalence import same_answer
from stepdpo.evaluation.graders.logic import unknown
from stepdpo.evaluation.graders.normalise import normalise
from stepdpo.evaluation.graders.pending import LONGEST, Comparison, Pending, settle
from stepdpo.evaluation.graders.pool import compare


@dataclass(frozen=True)
class Strict:
    """Grade by mathematical meaning: correct iff the answer found means the same as the gold answers.

    Brackets keep their kind, numbers are never forgiven a factor of 100, decimals agree to 1e-6, lists are sets
    unless in brackets, and a response's last box counts. docs/grading.md lists the conventions.
    """

    def grade(self, response: str, problem: Problem) -> Grade:
        """Grade one response; formulas are compared in a shared worker, in bounded time."""
        examined = self.examine(response, problem)
        return examined if isinstance(examined, Grade) else examined.grade(compare(examined.comparison))

    def examine(self, response: str, problem: Problem) -> Grade | Pending:
        """The grade, as far as strings and numbers decide it."""
        found = find_answer(response)
        if found is None:
            return Grade(UNPARSED, "", "no answer found")
        prediction = normalise(found.text) if len(found.text) <= LONGEST else found.text
        golds = tuple(normalise(gold_answer(gold)) for gold in problem.answers)
        comparison = Comparison("strict", (prediction,), golds)
        return settle(comparison, found.rule, lambda p, g: same_answer(p, g, unknown))
