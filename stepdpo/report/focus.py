"""What one run has over each other run: a sentence a comparison, problem by problem."""

from __future__ import annotations

from collections.abc import Mapping

from stepdpo.report.tables import GRADER, EvaluationResult, compare_paired

SIGNIFICANCE = 0.05
"""A paired p below this is called a difference."""


def focus_sentences(name: str, focus: EvaluationResult, others: Mapping[str, EvaluationResult]) -> list[str]:
    """One sentence a run of `others`, by its name; p by the exact two-sided McNemar test."""
    return [_sentence(name, focus, other, evaluation) for other, evaluation in others.items()]


def _sentence(name: str, focus: EvaluationResult, other: str, evaluation: EvaluationResult) -> str:
    pair = compare_paired(evaluation, focus, GRADER)
    points, error = 100 * pair.delta, 100 * pair.stderr
    known = f"(n = {pair.n}, p = {pair.p_value:.2g})"
    if pair.p_value >= SIGNIFICANCE:
        return f"{name} shows no sure difference to {other}: {points:+.1f} ± {error:.1f} points {known}"
    return f"{name} is {'above' if points > 0 else 'below'} {other} by {abs(points):.1f} ± {error:.1f} points {known}"
