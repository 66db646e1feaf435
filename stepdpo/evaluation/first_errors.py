"""`stepdpo eval` of a task that asks where solutions go wrong: their steps scored, the first wrong one named or not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import SamplerSpec, Template
from stepdpo.core.steps import step_ends
from stepdpo.core.types import Prompt
from stepdpo.data.fields import RowError
from stepdpo.data.labelled_solutions import LabelledSolution, LabelledTask
from stepdpo.data.template_card import resolve
from stepdpo.evaluation.first_error import KIND, ScoredSolution, best_threshold, figures, held_out, predictions
from stepdpo.evaluation.identity import option, settings
from stepdpo.generation.requests import Beginning, JudgeFailed, Scored
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.step_scorer import Asked, StepScorer, knowing
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.run_folder import JUDGED, SUMMARY
from stepdpo.runtime.secrets import redact
from stepdpo.tokens.tokenization import question_prompt

TOGETHER = 64
"""Solutions that are scored by one call: enough to fill a device, few enough that the progress is seen."""


def refuse_without_scorer(task: LabelledTask, decode: Any, scorer: StepScorer) -> None:
    """UserError for what such an evaluation lacks, or does not look at."""
    if isinstance(scorer, NoScorer):
        raise UserError(
            f"task={task.name} asks which step is wrong: add scorer=value_head (of a model trained with algo=value, "
            "prm or svpo), scorer=implicit (of one trained with a preference loss), scorer=prm, scorer=logprob, "
            "or judge=openai"
        )
    if option(decode) != "greedy":
        raise UserError(f"decode={option(decode)}: task={task.name} has its solutions already; leave decode= out")


def name_first_errors(
    task: LabelledTask, scorer: StepScorer, model: ModelSpec, template: Template, sampler: SamplerSpec, folder: Path
) -> dict[str, Any]:
    """Score the steps of all solutions, write `judged.jsonl` and `summary.json` into `folder`.

    A step is named that is the first with a score below the threshold: the task's own, else the scorer's, else the one
    with the largest F1 on solutions of problems that are held out for this and in no figure. Returns the summary; its
    `accuracy` is the F1. Raises UserError for bad input.
    """
    scorer.must_fit(model)
    began = time.monotonic()
    tokenizer = model.tokenizer()
    template, warning = resolve(template, model.source, tokenizer, started_on(folder))
    if warning:
        print(f"warning: {warning}", flush=True)
    solutions, items, refused = _asked(task.solutions(), template, tokenizer)
    if not items:
        raise UserError(f"task={task.name}: no solution of it can be asked about{_reason(refused)}")
    print(f"{task.name}: {len(items)} solutions by {option(scorer)}, template {template.name}", flush=True)
    problems = {prompt: one.problem for (prompt, _), one in zip(items, solutions, strict=True)}
    asked = Asked(problems, template, tokenizer, task.checker, folder)
    found: list[Scored | JudgeFailed] = []
    with (
        sampler.open(model) as opened,
        knowing(scorer, asked).open(model, opened) as score_steps,
        Progress("solution", len(items)) as progress,
    ):
        assert score_steps is not None, "an evaluation without a scorer is refused before"
        for first in range(0, len(items), TOGETHER):
            some = score_steps(items[first : first + TOGETHER])
            found += some
            progress.advance(len(some))
        provenance = {**getattr(opened, "provenance", {}), **getattr(score_steps, "provenance", {})}
    scored = [
        ScoredSolution(one.by_step if isinstance(one, Scored) else (), solution.first_error, solution.subset)
        for solution, one in zip(solutions, found, strict=True)
    ]
    threshold, chosen, tuned = _threshold(task, scorer, solutions, scored)
    measured = [one for one, held in zip(scored, tuned, strict=True) if not held]
    if not measured:
        raise UserError(
            f"task={task.name}: all its solutions are held out; give task.threshold=, or a smaller task.heldout"
        )
    numbers = figures(measured, threshold)
    summary = {
        "kind": KIND, "task": task.name, "template": template.name, "model": getattr(model, "path", model.source),
        "scorer": {"name": option(scorer), **settings(scorer)}, "accuracy": numbers["f1"], **numbers,
        "threshold": {"value": threshold, "from": chosen, "held_out": sum(tuned)},
        "left_out": len(refused), "scored_tokens": sum(one.tokens for one in found if isinstance(one, Scored)),
        "warnings": [warning] if warning else [], "stepdpo": stepdpo.__version__, **provenance,
        "seconds": round(time.monotonic() - began, 2),
    }  # fmt: skip
    named = predictions(scored, threshold)
    rows = [
        {
            "id": solution.id, "subset": solution.subset, "first_error": solution.first_error, "named": name,
            "held_out": held, "scores": list(one.scores), "correct": solution.correct,
            **({"failed": reply.reason} if isinstance(reply, JudgeFailed) else {}),
        }
        for solution, one, name, held, reply in zip(solutions, scored, named, tuned, found, strict=True)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / JUDGED, rows)
    write_json(folder / SUMMARY, redact(summary))
    print(sentence(summary), flush=True)
    return summary


def _asked(
    solutions: Sequence[LabelledSolution], template: Template, tokenizer: Any
) -> tuple[list[LabelledSolution], list[tuple[str, Beginning]], dict[str, str]]:
    """The solutions that can be asked about, each as a scorer reads it, and why others cannot, by their ids."""
    asked: list[LabelledSolution] = []
    items: list[tuple[str, Beginning]] = []
    refused: dict[str, str] = {}
    for one in solutions:
        try:
            prompt = question_prompt(template, one.problem.question, (), tokenizer)
        except RowError as error:
            refused[one.id] = str(error)
            continue
        asked.append(one)
        items.append((prompt.text, _beginning(prompt, one)))
    return asked, items, refused


def _beginning(prompt: Prompt, one: LabelledSolution) -> Beginning:
    """The whole solution as the model would have written it: the joint first, which it writes itself."""
    # A step ends before its line break: a value is read there, where a head was trained to say it.
    text, ends = prompt.joint + "".join((one.head, *one.steps)), step_ends(prompt.joint + one.head, one.steps)
    return Beginning(tuple(text[start:end] for start, end in pairwise((0, *ends))), ended=True)


def _threshold(
    task: LabelledTask, scorer: StepScorer, solutions: Sequence[LabelledSolution], scored: Sequence[ScoredSolution]
) -> tuple[float, str, list[bool]]:
    """(the threshold, where it comes from in a few words, which of the solutions are held out for it)."""
    if task.threshold is not None:
        return task.threshold, "task.threshold", [False] * len(scored)
    own: float | None = getattr(scorer, "threshold", None)
    if own is not None:
        return own, f"scorer={option(scorer)}", [False] * len(scored)
    tuned = [held_out(one.problem.question, task.heldout, task.seed) for one in solutions]
    held = [one for one, held in zip(scored, tuned, strict=True) if held]
    if not any(one.first_error >= 0 for one in held) or not any(one.first_error < 0 for one in held):
        raise UserError(
            f"task={task.name}: no threshold can be chosen on {len(held)} held-out solutions, among which must be "
            "right and wrong ones; take more solutions, a larger task.heldout, or give task.threshold="
        )
    return best_threshold(held), "the largest F1 on held-out problems", tuned


def _reason(refused: Mapping[str, str]) -> str:
    return next((f" ({name}: {why})" for name, why in refused.items()), "")


def sentence(summary: Mapping[str, Any]) -> str:
    """The figures of an evaluation in a few words; also in the report."""
    threshold = summary["threshold"]
    held = f", {threshold['held_out']} solutions, in no figure" if threshold["held_out"] else ""
    subsets = [f"{name} {100 * one['f1']:.1f}" for name, one in summary["subsets"].items() if name]
    return (
        f"F1 {100 * summary['f1']:.1f} %: the first wrong step is named in {100 * summary['named']:.1f} % of the wrong "
        f"solutions (it is the first one of all in {100 * summary['always_first']:.1f} %), "
        f"{100 * summary['passed']:.1f} % of the right ones are passed; {summary['n']} solutions; a step is wrong "
        f"below {threshold['value']:.4g} (from {threshold['from']}{held})"
        + (f"; F1 by subset: {', '.join(subsets)}" if len(subsets) > 1 else "")
    )
