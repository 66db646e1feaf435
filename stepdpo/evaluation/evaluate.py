"""`stepdpo eval`: problems in, graded answers and an accuracy with its interval out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import CountsMistakes, Decoder, SamplerSpec, Template
from stepdpo.core.types import Attempt, Completion, MistakeCount, Problem
from stepdpo.data.fields import RowError
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.template_card import date_of, resolve
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.evaluation.responses import answered
from stepdpo.evaluation.statistics import summarise
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.run_folder import ATTEMPTS, QUARANTINE, RESPONSES, SUMMARY
from stepdpo.runtime.secrets import redact
from stepdpo.tokens.tokenization import question_prompt

TOO_MANY = 0.05
"""Share of responses without an answer, or cut at the limit, above which a warning is due."""


@dataclass(frozen=True)
class Evaluation:
    """All settings of one evaluation; the parts are built from their own config groups."""

    model: ModelSpec
    task: TaskSpec
    template: Template
    decode: Decoder
    sampler: SamplerSpec


def evaluate(spec: Evaluation, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Answer every problem of the task, grade the responses, write `attempts.jsonl` and `summary.json`.

    Responses are kept as they come: with `resume`, those of an attempt that was stopped are not asked for again.
    Returns the summary, and in it `accuracy` in the eyes of the strict grader. Raises UserError for bad input.
    """
    tokenizer = spec.model.tokenizer()
    template, warning = resolve(spec.template, spec.model.source, tokenizer, started_on(folder))
    if warning:
        print(f"warning: {warning}", flush=True)
    problems = spec.task.problems()
    problems, prompts, refused = _render(problems, template, tokenizer)
    if refused:
        warning = _leave_out(refused, folder, warning, asked=len(problems))
    option = _option(spec.decode)
    if day := date_of(template):
        print(f"the chat template writes the date: {day}", flush=True)
    print(f"{spec.task.name}: {len(problems)} problems, {option}, template {template.name}", flush=True)
    # Loading the model counts: it is part of what an evaluation costs.
    began = time.monotonic()
    with spec.sampler.open(spec.model) as sampler:
        key = _key(spec)
        completions = answered(prompts, key, lambda some: spec.decode(some, sampler), folder, resume)
        provenance = getattr(sampler, "provenance", {})
    seconds = time.monotonic() - began
    attempts = _grade(problems, completions)
    summary = _summary(spec, template, attempts, warning) | provenance | {"seconds": round(seconds, 2)}
    mistakes = _mistakes(spec.task.checker, problems, attempts)
    if mistakes:
        summary["mistakes"] = {kind: asdict(count) for kind, count in mistakes.items()}
    _write(folder, attempts, summary)
    _print(summary)
    return summary


def _key(spec: Evaluation) -> str:
    """What responses depend on besides their prompts."""
    return hashlib.sha256(f"{spec.model.fingerprint()} {spec.decode!r} {spec.sampler!r}".encode()).hexdigest()


def _render(
    problems: Sequence[Problem], template: Template, tokenizer: Any
) -> tuple[list[Problem], list[str], dict[str, str]]:
    """The problems that can be asked, the text that the model goes on from for each, and why others cannot, by id."""
    asked, prompts, refused = [], [], {}
    for problem in problems:
        try:
            prompts.append(question_prompt(template, problem.question, (), tokenizer).text)
            asked.append(problem)
        except RowError as error:
            refused[problem.id] = str(error)
    return asked, prompts, refused


def _leave_out(refused: Mapping[str, str], folder: Path, warning: str | None, asked: int) -> str:
    """Keep the problems that cannot be asked, with the reasons; returns the warning that says so."""
    first, reason = next(iter(refused.items()))
    said = f"{len(refused)} problems cannot be asked and are in no figure ({first}: {reason})"
    if not asked:
        raise UserError(said)
    said += f"; see {folder / QUARANTINE}"
    print(f"warning: {said}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / QUARANTINE, [{"problem": name, "reason": why} for name, why in refused.items()])
    return "; ".join(filter(None, (warning, said)))


def _grade(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Attempt]:
    """Grade one completion a problem by both graders, in bounded time."""
    items = [(completion.text, problem) for completion, problem in zip(completions, problems, strict=True)]
    with graders() as grade_many:
        official, strict = grade_many(items, Official()), grade_many(items, Strict())
    return [
        Attempt(
            problem_id=problem.id,
            question=problem.question,
            answers=problem.answers,
            response=completion.text,
            tokens=completion.tokens,
            finish=completion.finish,
            official=by_official,
            strict=by_strict,
            meta=problem.meta,
        )
        for problem, completion, by_official, by_strict in zip(problems, completions, official, strict, strict=True)
    ]


def _mistakes(checker: object, problems: Sequence[Problem], attempts: Sequence[Attempt]) -> dict[str, MistakeCount]:
    """By kind, over all responses; nothing where the checker cannot tell kinds, or the problems have none."""
    totals: dict[str, MistakeCount] = {}
    if isinstance(checker, CountsMistakes):
        for problem, attempt in zip(problems, attempts, strict=True):
            for kind, count in checker.mistakes(problem, attempt.response).items():
                before = totals.get(kind, MistakeCount(0, 0))
                totals[kind] = MistakeCount(before.made + count.made, before.reached + count.reached)
    return totals


def _option(part: Any) -> str:
    """The config option that a part comes from: the last word of its module's name."""
    return type(part).__module__.rpartition(".")[2]


def _settings(part: Any) -> dict[str, Any]:
    """The fields of a part, which is a dataclass as everything is that a configuration builds."""
    return asdict(part)


def _summary(spec: Evaluation, template: Template, attempts: Sequence[Attempt], warning: str | None) -> dict[str, Any]:
    if not attempts:
        raise UserError(f"task {spec.task.name}: there are no problems in it")
    numbers = summarise(attempts)
    return {
        "task": spec.task.name,
        "decode": _option(spec.decode),
        "template": template.name,
        "model": getattr(spec.model, "path", spec.model.source),
        "accuracy": numbers["graders"]["strict"]["accuracy"],
        **numbers,
        "settings": _settings(spec.decode),
        "warnings": [warning] if warning else [],
        "stepdpo": stepdpo.__version__,
    }


def _write(folder: Path, attempts: Sequence[Attempt], summary: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(attempt) for attempt in attempts]
    for row in rows:
        if not row["meta"]:
            del row["meta"]
    write_jsonl(folder / ATTEMPTS, rows)
    # The summary last: readers take a folder without one for no evaluation, whatever has stopped this.
    write_json(folder / SUMMARY, redact(summary))  # a model's path may hold what a reference stands for
    (folder / RESPONSES).unlink(missing_ok=True)


def _print(summary: dict[str, Any]) -> None:
    """One line a grader, one a kind of mistake, and what makes the numbers doubtful."""
    n = summary["n"]
    for grader, block in summary["graders"].items():
        share, interval = 100 * block["accuracy"], (100 * block["ci_low"], 100 * block["ci_high"])
        print(
            f"{grader:<9}{share:5.1f} %  (95 %: {interval[0]:.1f} to {interval[1]:.1f})  "
            f"{block['correct']}/{n} correct, {block['unparsed']} without an answer",
            flush=True,
        )
    for kind, count in summary.get("mistakes", {}).items():
        print(f"{kind}: {count['made']} of {count['reached']} times", flush=True)
    unparsed, truncated = summary["graders"]["strict"]["unparsed"], summary["truncated"]
    if unparsed > TOO_MANY * n:
        print(f"warning: no answer found in {unparsed} of {n} responses; is this the model's template?", flush=True)
    if truncated > TOO_MANY * n:
        print(f"warning: {truncated} of {n} responses ran into decode.max_tokens or the model's length", flush=True)
