"""Rows of PRM800K (Lightman et al. 2023, arXiv 2305.20050): people's ratings of a model's steps.

A row holds one solution, step by step, and at many steps other completions that were rated beside the chosen one. So
it is read in two ways: as the solution with its labels, or as pairs of rated siblings, of which a row may hold many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepdpo.core.steps import on_lines
from stepdpo.core.types import Mark, Preference
from stepdpo.data.fields import RowError, RowFields

VALUES: Mapping[float | None, float | None] = {1: 1.0, 0: None, -1: 0.0, None: None}
"""A neutral step is neither: nobody said whether it is right, only that it does not help."""
KEPT = ("generation", "is_quality_control_question", "is_initial_screening_question")


@dataclass(frozen=True, slots=True)
class Rated:
    """A completion of a step."""

    text: str
    value: float | None


@dataclass(frozen=True, slots=True)
class RatedStep:
    """What was written after the steps before it."""

    taken: Rated | None
    """The one that the solution goes on with; None where it ends before."""
    others: tuple[Rated, ...]


def is_prm800k(cells: Mapping[str, Any]) -> bool:
    """Whether the two columns, whose names are those of many data sets, hold such objects."""
    question, label = cells.get("question"), cells.get("label")
    return isinstance(question, dict) and "problem" in question and isinstance(label, dict) and "steps" in label


def read_prm800k(cells: RowFields, odd: Counter[str]) -> Preference:
    """The solution along the chosen completions, or those that people wrote, up to the first step without either.

    There, the first completion that was rated wrong ends it: it is the mistake that the labelling stopped at. The whole
    is right where the labelling came to the end of a solution and no step is wrong, wrong where a step is wrong, and
    unknown else. Only what came to its end is a whole response.
    """
    label = cells.inner("label")
    path, finished = [], label.text("finish_reason", "") == "solution"
    for step in _steps(label):
        end = step.taken or next((one for one in step.others if one.value == 0), None)
        path += [end] if end else []
        if step.taken is None:
            finished = False
            break
    if not path:
        raise RowError("column 'label': no step was chosen or rated wrong")
    text, ends = on_lines([one.text for one in path])
    wrong = any(one.value == 0 for one in path)
    odd["solutions that were not labelled to their end"] += not finished
    question = cells.inner("question")
    return Preference(
        question=question.text("problem"),
        prefix="",
        chosen=text,
        rejected="",
        answer=", ".join(question.answers("ground_truth_answer")),
        whole=finished,
        label=0.0 if wrong else 1.0 if finished else None,
        chosen_steps=tuple(Mark(end, one.value) for end, one in zip(ends, path, strict=True)),
        meta=_meta(cells, label),
    )


def read_prm800k_pairs(cells: RowFields, odd: Counter[str]) -> list[Preference]:
    """Of every step, each completion that was rated wrong against one that was rated right, or written by people.

    The right ones take turns, that which the solution goes on with first. A row without such siblings holds no pair.
    """
    label, question = cells.inner("label"), cells.inner("question")
    problem, answer = question.text("problem"), ", ".join(question.answers("ground_truth_answer"))
    pairs: list[Preference] = []
    path: list[Rated] = []
    for number, step in enumerate(_steps(label)):
        rated = ([step.taken] if step.taken else []) + list(step.others)
        right = list({one.text: one for one in rated if one.value == 1}.values())
        wrong = {one.text: one for one in rated if one.value == 0}
        for turn, other in enumerate(wrong.values() if right else ()):
            chosen = right[turn % len(right)]
            if chosen.text.split() != other.text.split():
                about = {**_meta(cells, label), "step": number}
                pairs.append(_pair(problem, answer, path, chosen, other, about))
        if step.taken is None:
            break
        path.append(step.taken)
    odd["rows without a right and a wrong completion of one step"] += not pairs
    return pairs


def _pair(
    problem: str, answer: str, path: list[Rated], chosen: Rated, rejected: Rated, meta: Mapping[str, Any]
) -> Preference:
    """Two completions after the same steps, and nothing after them; the line break before them is shared."""
    before = [one.text for one in path]
    (text, ends), (other, others) = on_lines([*before, chosen.text]), on_lines([*before, rejected.text])
    at = ends[-2] if before else 0
    at += text[at : at + 1] == other[at : at + 1] == "\n"
    return Preference(
        question=problem,
        prefix=text[:at],
        chosen=text[at:],
        rejected=other[at:],
        answer=answer,
        chosen_steps=tuple(map(Mark, ends, [*(one.value for one in path), chosen.value])),
        rejected_steps=tuple(map(Mark, others, [*(one.value for one in path), rejected.value])),
        meta=meta,
    )


def _steps(label: RowFields) -> Iterator[RatedStep]:
    """The labelled steps; the completions, the chosen one and that of people may each be missing."""
    for number, step in enumerate(label.items("steps", "a list of steps")):
        at = f"label.steps, step {number}"
        if not isinstance(step, dict):
            raise RowError(f"{at}: expected an object")
        given = step.get("completions")
        if given is not None and not isinstance(given, list):
            raise RowError(f"{at}: completions: expected a list or null")
        completions = [_rated(one, f"{at}, completion {place}") for place, one in enumerate(given or [])]
        chosen, human = step.get("chosen_completion"), step.get("human_completion")
        taken: Rated | None = None
        if chosen is not None:
            if type(chosen) is not int or not 0 <= chosen < len(completions):
                raise RowError(f"{at}: chosen_completion is {str(chosen)[:20]}, of {len(completions)} completions")
            taken = completions.pop(chosen)
        elif human is not None:
            taken = _rated(human, f"{at}, human_completion", unrated=1)
        if taken is not None and not taken.text.strip():
            raise RowError(f"{at}: the text that the solution goes on with is empty")
        yield RatedStep(taken, tuple(one for one in completions if one.text.strip()))


def _rated(item: Any, at: str, unrated: int | None = None) -> Rated:
    """A completion with its rating; `unrated` is taken for none."""
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise RowError(f"{at}: expected an object with a text")
    rating = item.get("rating")
    rating = unrated if rating is None else rating
    if isinstance(rating, bool) or not isinstance(rating, int | float | None) or rating not in VALUES:
        raise RowError(f"{at}: the rating is {str(rating)[:20]}, not one of -1, 0, 1 and null")
    return Rated(item["text"], VALUES[rating])


def _meta(cells: RowFields, label: RowFields) -> dict[str, Any]:
    return {**cells.some(KEPT), **label.some(("finish_reason",))}
