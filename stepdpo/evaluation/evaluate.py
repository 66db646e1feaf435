"""`stepdpo eval`: problems in, graded answers and an accuracy with its interval out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import CountsMistakes, SamplerSpec, Template
from stepdpo.core.types import Attempt, MistakeCount, Problem, Prompt, Sampling
from stepdpo.data.fields import RowError
from stepdpo.data.labelled_solutions import is_labelled
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.template_card import date_of, resolve
from stepdpo.evaluation.answer_groups import answer_groups
from stepdpo.evaluation.attempts import attempts_of, row_of
from stepdpo.evaluation.decoding_numbers import cost_numbers, numbers_at_k
from stepdpo.evaluation.first_errors import name_first_errors, refuse_without_scorer
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.responses import answered
from stepdpo.evaluation.statistics import counted, summarise
from stepdpo.generation.answering import Answering
from stepdpo.generation.decode_many import context_of, decode_many
from stepdpo.generation.decoded import Decoded, Decoder
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.step_scorer import StepScorer
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.progress import Progress
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
    scorer: StepScorer = field(default_factory=NoScorer)


def refuse_unasked_scorer(spec: Any) -> None:
    """UserError for a decoder without the scorer that it needs, or a scorer that nobody asks.

    `spec` is an Evaluation, or some of its parts. Whether the scorer fits the model is not looked at here: at the
    launch, the model of a training that is to be evaluated is not there yet.
    """
    decode, scorer = (getattr(spec, name, None) for name in ("decode", "scorer"))
    if decode is None or scorer is None:
        return
    if is_labelled(task := getattr(spec, "task", None)):
        refuse_without_scorer(task, decode, scorer)
        return
    option = _option(decode)
    if isinstance(scorer, NoScorer):
        if "scorer" in decode.needs:
            raise UserError(
                f"decode={option} chooses by scores: add scorer=value_head (of a model trained with algo=value, prm or "
                "svpo), scorer=implicit (of one trained with a preference loss), scorer=prm or scorer=logprob"
            )
    elif "scorer" not in decode.needs | decode.takes:
        raise UserError(f"scorer={_option(scorer)}: decode={option} looks at no scores; leave scorer= out")


def evaluate(spec: Evaluation, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Answer every problem of the task, grade the responses, write `attempts.jsonl` and `summary.json`.

    Responses are kept as they come: with `resume`, those of an attempt that was stopped are not asked for again.
    Returns the summary, and in it `accuracy` in the eyes of the strict grader. Raises UserError for bad input.
    """
    refuse_unasked_scorer(spec)
    if is_labelled(spec.task):
        return name_first_errors(spec.task, spec.scorer, spec.model, spec.template, spec.sampler, folder)
    spec.scorer.must_fit(spec.model)
    tokenizer = spec.model.tokenizer()
    template, warning = resolve(spec.template, spec.model.source, tokenizer, started_on(folder))
    if warning:
        print(f"warning: {warning}", flush=True)
    problems = spec.task.problems()
    problems, prompts, refused = _render(problems, template, tokenizer)
    if refused:
        warning = _leave_out(refused, folder, warning, asked=len(problems))
    option = _option(spec.decode) + ("" if isinstance(spec.scorer, NoScorer) else f" by {_option(spec.scorer)}")
    if day := date_of(template):
        print(f"the chat template writes the date: {day}", flush=True)
    print(f"{spec.task.name}: {len(problems)} problems, {option}, template {template.name}", flush=True)
    # Loading the model counts: it is part of what an evaluation costs.
    began = time.monotonic()
    # A search calls the sampler once a step: what is counted then is problems, and a bar of each call would be noise.
    searches = spec.decode.needs == {"scorer"}
    with (
        graders() as grade_many,
        _quiet(spec.sampler, searches).open(spec.model) as sampler,
        Progress("problem", len(problems), enabled=searches) as progress,
        spec.scorer.open(spec.model, sampler) as score_steps,
    ):
        answering = Answering(
            sampler, Sampling(), score_steps=score_steps, group=lambda responses: answer_groups(responses, grade_many)
        )
        contexts = [context_of(prompt, tokenizer, score_steps is not None) for prompt in prompts]
        decode: Callable[[Sequence[int]], list[Decoded]] = lambda some: decode_many(  # noqa: E731
            spec.decode, [contexts[i] for i in some], answering, progress.advance
        )
        decoded = answered([prompt.text for prompt in prompts], _key(spec), decode, folder, resume)
        provenance = getattr(sampler, "provenance", {})
    seconds = time.monotonic() - began
    attempts = attempts_of(problems, decoded)
    summary = _summary(spec, template, attempts, warning) | provenance | {"seconds": round(seconds, 2)}
    summary["cost"] = cost_numbers([one.cost for one in decoded])
    if "answers" in spec.decode.needs:
        summary |= numbers_at_k(attempts, spec.scorer.log)
    mistakes = _mistakes(spec.task.checker, problems, attempts)
    if mistakes:
        summary["mistakes"] = {kind: asdict(count) for kind, count in mistakes.items()}
    _write(folder, attempts, summary)
    _print(summary)
    return summary


def _quiet(sampler: SamplerSpec, quiet: bool) -> SamplerSpec:
    """The sampler, without a bar of its own where it has one and is to be quiet."""
    shown: Any = sampler  # a dataclass like every spec
    silent: SamplerSpec = replace(shown, progress=False) if quiet and hasattr(shown, "progress") else sampler
    return silent


def _key(spec: Evaluation) -> str:
    """What responses depend on besides their prompts."""
    scorer = "" if isinstance(spec.scorer, NoScorer) else f" {spec.scorer!r}"
    parts = f"{spec.model.fingerprint()} {spec.decode!r} {spec.sampler!r}{scorer}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _render(
    problems: Sequence[Problem], template: Template, tokenizer: Any
) -> tuple[list[Problem], list[Prompt], dict[str, str]]:
    """The problems that can be asked, the prompt that the model goes on from for each, and why others cannot, by id."""
    asked, prompts, refused = [], [], {}
    for problem in problems:
        try:
            prompts.append(question_prompt(template, problem.question, (), tokenizer))
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
    """The fields of a part, which is a dataclass as everything is that a configuration builds, as JSON has them."""
    return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(part).items()}


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
        **(
            {}
            if isinstance(spec.scorer, NoScorer)
            else {"scorer": {"name": _option(spec.scorer), **_settings(spec.scorer)}}
        ),
        "warnings": [warning] if warning else [],
        "stepdpo": stepdpo.__version__,
    }


def _write(folder: Path, attempts: Sequence[Attempt], summary: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / ATTEMPTS, map(row_of, attempts))
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
            f"{counted(block['correct'])}/{n} correct, {counted(block['unparsed'])} without an answer",
            flush=True,
        )
    for name, values in summary.get("at_k", {}).items():
        print(
            f"{name}: " + ", ".join(f"{100 * value['value']:.1f} % at {k}" for k, value in values.items()), flush=True
        )
    if summary["decode"] != "greedy":
        cost = [f"{one['mean']:,.0f} {name.replace('_', ' ')}" for name, one in summary["cost"].items()]
        print(f"a problem: {', '.join(cost)}", flush=True)
    for kind, count in summary.get("mistakes", {}).items():
        print(f"{kind}: {count['made']} of {count['reached']} times", flush=True)
    unparsed, truncated = summary["graders"]["strict"]["unparsed"], summary["truncated"]
    if unparsed > TOO_MANY * n:
        print(
            f"warning: no answer found in {counted(unparsed)} of {n} responses; is this the model's template?",
            flush=True,
        )
    if truncated > TOO_MANY * n:
        print(
            f"warning: {counted(truncated)} of {n} responses ran into decode.max_tokens or the model's length",
            flush=True,
        )
