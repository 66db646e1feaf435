"""What a decoder came to as graded attempts, and attempts as the rows of attempts.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stepdpo.core.types import Attempt, Grade, GradedResponse, Problem
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pool import GradeMany
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.evaluation.statistics import GRADERS
from stepdpo.generation.decoded import Cost, Decoded, Response


def attempts_of(decoded: Sequence[tuple[Problem, Decoded, int | None]], grade_many: GradeMany) -> list[Attempt]:
    """Grade all responses by both graders, in bounded time; each with its problem and the seed it was made under."""
    items = [(response.completion.text, problem) for problem, one, _ in decoded for response in one.responses]
    grades = iter(list(zip(grade_many(items, Official()), grade_many(items, Strict()), strict=True)))
    attempts = []
    for problem, one, seed in decoded:
        responses = [_graded(response, *next(grades)) for response in one.responses]
        shown = max(responses, key=lambda response: response.share)
        attempts.append(
            Attempt(
                problem_id=problem.id,
                question=problem.question,
                answers=problem.answers,
                response=shown.response,
                tokens=shown.tokens,
                finish=shown.finish,
                official=shown.official,
                strict=shown.strict,
                meta=problem.meta,
                samples=tuple(responses) if len(responses) > 1 or shown.score is not None else (),
                cost={} if one.cost == Cost(shown.tokens, 0, 1) else asdict(one.cost),
                seed=seed,
            )
        )
    return attempts


def cost_of(attempt: Attempt) -> Cost:
    """What it took; a single response whose cost is left out cost itself."""
    return Cost(**attempt.cost) if attempt.cost else Cost(attempt.tokens, 0, 1)


def _graded(response: Response, official: Grade, strict: Grade) -> GradedResponse:
    written = response.completion
    return GradedResponse(
        written.text, written.tokens, written.finish, official, strict, response.share, response.score, response.group
    )


def row_of(attempt: Attempt) -> dict[str, Any]:
    """An attempt as a line of the file; what is empty is left out."""
    row = asdict(attempt)
    for name, nothing in (("meta", {}), ("samples", ()), ("cost", {}), ("seed", None)):
        if row[name] == nothing:
            del row[name]
    return row


def attempt_of(row: Mapping[str, Any]) -> Attempt:
    """The inverse; KeyError or TypeError for a row that is none."""
    samples = tuple(GradedResponse(**{**one, **_grades(one)}) for one in row.get("samples", ()))
    return Attempt(**{**row, **_grades(row), "answers": tuple(row["answers"]), "samples": samples})


def _grades(row: Mapping[str, Any]) -> dict[str, Grade]:
    return {grader: Grade(**row[grader]) for grader in GRADERS}
