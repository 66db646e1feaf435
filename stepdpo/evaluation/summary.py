"""The numbers of an evaluation, with what they depend on: summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import stepdpo
from stepdpo.core.protocols import CountsMistakes
from stepdpo.core.types import Attempt, MistakeCount, Problem
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.shots import Shots
from stepdpo.evaluation.attempts import cost_of
from stepdpo.evaluation.breakdown import breakdown
from stepdpo.evaluation.decoding_numbers import cost_numbers, numbers_at_k
from stepdpo.evaluation.identity import option, settings
from stepdpo.evaluation.statistics import by_seed, summarise
from stepdpo.generation.decoded import Decoder
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.step_scorer import StepScorer
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated on which problems, and how."""

    task: TaskSpec
    decode: Decoder
    scorer: StepScorer
    model: ModelSpec
    template: str
    problems: Sequence[Problem]
    shots: Shots | None = None


def summary_of(
    of: Evaluated, attempts: Sequence[Attempt], warning: str | None, provenance: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """All that summary.json holds; `attempts` of one problem or more."""
    numbers = summarise(attempts)
    scored = not isinstance(of.scorer, NoScorer)
    summary = {
        "task": of.task.name,
        "decode": option(of.decode),
        "template": of.template,
        "model": getattr(of.model, "path", of.model.source),
        "accuracy": numbers["graders"]["strict"]["accuracy"],
        **numbers,
        "settings": settings(of.decode),
        **({"scorer": {"name": option(of.scorer), **settings(of.scorer)}} if scored else {}),
        **({"shots": _shots(of.shots)} if of.shots else {}),
        "warnings": [warning] if warning else [],
        "stepdpo": stepdpo.__version__,
        **provenance,
        "seconds": round(seconds, 2),
        "cost": cost_numbers([cost_of(attempt) for attempt in attempts]),
    }
    if seeds := by_seed(attempts, "strict"):
        summary["seeds"] = {str(seed): accuracy for seed, accuracy in seeds.items()}
    if "answers" in of.decode.needs:
        summary |= numbers_at_k(attempts, of.scorer.log)
    if by := breakdown(of.problems, attempts):
        summary["by"] = by
    if mistakes := _mistakes(of.task.checker, of.problems, attempts):
        summary["mistakes"] = {kind: asdict(count) for kind, count in mistakes.items()}
    return summary


def _shots(shots: Shots) -> dict[str, Any]:
    """How many worked examples, from where, and which: the last stands in for one that is asked itself."""
    return {"count": shots.count, "from": shots.source, "examples": [one.id for one in shots.examples]}


def _mistakes(checker: object, problems: Sequence[Problem], attempts: Sequence[Attempt]) -> dict[str, MistakeCount]:
    """By kind, over all responses; nothing where the checker cannot tell kinds, or the problems have none."""
    totals: dict[str, MistakeCount] = {}
    if isinstance(checker, CountsMistakes):
        by_id = {problem.id: problem for problem in problems}
        for attempt in attempts:
            for kind, count in checker.mistakes(by_id[attempt.problem_id], attempt.response).items():
                before = totals.get(kind, MistakeCount(0, 0))
                totals[kind] = MistakeCount(before.made + count.made, before.reached + count.reached)
    return totals
