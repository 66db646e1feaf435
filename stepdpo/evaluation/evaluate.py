"""`stepdpo eval`: problems in, graded answers and an accuracy with its interval out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.protocols import SamplerSpec, Template
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Problem, Prompt
from stepdpo.crew.groups import groups
from stepdpo.crew.local import LocalExecutor
from stepdpo.crew.protocols import Executor
from stepdpo.data.fields import RowError
from stepdpo.data.labelled_solutions import is_labelled
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.shots import Shots, must_suffice
from stepdpo.data.template_card import date_of, resolve
from stepdpo.evaluation.attempt_log import AttemptLog, open_attempt_log
from stepdpo.evaluation.attempts import row_of
from stepdpo.evaluation.display import print_summary
from stepdpo.evaluation.first_errors import name_first_errors, refuse_without_scorer
from stepdpo.evaluation.identity import identity, option
from stepdpo.evaluation.lm_eval import LmEval, measure
from stepdpo.evaluation.seeds import check_seeds, under_seeds
from stepdpo.evaluation.summary import Evaluated, summary_of
from stepdpo.evaluation.worker import Asking, EvaluationContext, quiet
from stepdpo.generation.decoded import Decoder
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.step_scorer import Asked, StepScorer, knowing
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.run_folder import ATTEMPTS, QUARANTINE, SUMMARY, UNFINISHED
from stepdpo.runtime.secrets import redact
from stepdpo.runtime.signals import KEPT, interruptible


@dataclass(frozen=True)
class Evaluation:
    """All settings of one evaluation; the parts are built from their own config groups."""

    model: ModelSpec
    task: TaskSpec
    template: Template
    decode: Decoder
    sampler: SamplerSpec
    scorer: StepScorer = field(default_factory=NoScorer)
    live: int = 256
    """Problems that are answered together: enough to fill a device, few enough to lose. A sampler gives its responses
    all at once, so greedy answers and samples are kept so many at a time; searches are kept as each one ends."""
    crew: Executor = field(default_factory=LocalExecutor)
    """Who answers: this process, or many."""
    seeds: int | list[int] | None = None
    """Of a decoder that draws: how many, from its own on, or which; every problem is attempted under each."""

    def __post_init__(self) -> None:
        at_least(1, live=self.live)
        check_seeds(self.seeds)


def refuse_unasked_scorer(spec: Any) -> None:
    """UserError for a decoder without the scorer that it needs, or a scorer that nobody asks.

    `spec` is an Evaluation, or some of its parts, or what asks every scorer itself and says so (`shows_scores`).
    Whether the scorer fits the model is not looked at here: at the launch, the model of a training that is to be
    evaluated is not there yet.
    """
    decode, scorer = (getattr(spec, name, None) for name in ("decode", "scorer"))
    if decode is None or scorer is None:
        return
    task = getattr(spec, "task", None)
    if isinstance(task, LmEval):
        if option(decode) != "greedy" or not isinstance(scorer, NoScorer):
            raise UserError(f"task={task.name}: the harness answers in its own way; leave decode= and scorer= out")
        return
    if is_labelled(task):
        refuse_without_scorer(task, decode, scorer)
        return
    name = option(decode)
    if isinstance(scorer, NoScorer):
        if "scorer" in decode.needs:
            raise UserError(
                f"decode={name} chooses by scores: add scorer=value_head (of a model trained with algo=value, prm or "
                "svpo), scorer=implicit (of one trained with a preference loss), scorer=prm or scorer=logprob"
            )
    elif "scorer" not in decode.needs | decode.takes and not getattr(spec, "shows_scores", False):
        raise UserError(f"scorer={option(scorer)}: decode={name} looks at no scores; leave scorer= out")


def evaluate(spec: Evaluation, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Answer every problem of the task, grade the responses, write `attempts.jsonl` and `summary.json`.

    Attempts are kept as they come (attempt_log.py): with `resume`, finished problems are not asked again. Returns the
    summary, and in it `accuracy` in the eyes of the strict grader. Raises UserError for bad input, Outage where nothing
    was answered.
    """
    refuse_unasked_scorer(spec)
    if isinstance(spec.task, LmEval):
        return measure(spec.task, spec.model, folder)
    if is_labelled(spec.task):
        if not isinstance(spec.crew, LocalExecutor):
            print("warning: crew: this process alone names first wrong steps", flush=True)
        return name_first_errors(spec.task, spec.scorer, spec.model, spec.template, spec.sampler, folder)
    decoders = under_seeds(spec.decode, spec.seeds)
    spec.scorer.must_fit(spec.model)
    tokenizer = spec.model.tokenizer()
    template, warning = resolve(spec.template, spec.model.source, tokenizer, started_on(folder))
    if warning:
        print(f"warning: {warning}", flush=True)
    shots: Shots | None = spec.task.examples() if hasattr(spec.task, "examples") else None
    asking = Asking(template, tokenizer, shots)
    problems, prompts, refused = _render(spec.task.problems(), asking)
    if refused:
        warning = _leave_out(refused, folder, warning, asked=len(problems))
    if not problems:
        raise UserError(f"task {spec.task.name}: there are no problems in it")
    if shots:
        must_suffice(shots, problems)
    by_prompt = {prompt.text: problem for prompt, problem in zip(prompts, problems, strict=True)}
    scorer = knowing(spec.scorer, Asked(by_prompt, template, tokenizer, spec.task.checker, folder))
    context = EvaluationContext(decoders, scorer, asking, spec.model, spec.sampler)
    made_of = identity(
        task=spec.task.name, problems=problems, template=template.name, prompts=prompts, decode=spec.decode,
        scorer=spec.scorer, shots=shots, seeds=[seed for seed, _ in decoders], model=spec.model,
    )  # fmt: skip
    with open_attempt_log(folder, made_of, resume) as log:
        _announce(spec, asking, len(problems), len(log.done))
        with interruptible(KEPT):
            provenance = _run(spec, context, problems, log)
        evaluated = Evaluated(spec.task, spec.decode, spec.scorer, spec.model, template.name, problems, shots)
        if not log.done:
            raise Outage(f"no problem was answered ({next(iter(log.failed.values())).failed}): resume=true tries again")
        summary = summary_of(evaluated, log.attempts(problems), warning, provenance, log.seconds)
        _write(folder, summary, problems, log, refused)
    print_summary(summary)
    if log.failed:
        many = f"{len(log.failed)} of {len(problems)} problems have no answer and are in no figure"
        print(f"warning: {many}; see {folder / QUARANTINE}: resume=true tries them again", flush=True)
    return summary


def _announce(spec: Evaluation, asking: Asking, problems: int, done: int) -> None:
    template, shots = asking.template, asking.shots
    by = "" if isinstance(spec.scorer, NoScorer) else f" by {option(spec.scorer)}"
    if day := date_of(template):
        print(f"the chat template writes the date: {day}", flush=True)
    print(f"{spec.task.name}: {problems} problems, {option(spec.decode)}{by}, template {template.name}", flush=True)
    if shots:
        print(f"{shots.count} worked examples before each, from {shots.source}", flush=True)
    if done:
        print(f"{done} of {problems} problems were answered before", flush=True)


def _run(spec: Evaluation, context: EvaluationContext, problems: Sequence[Problem], log: AttemptLog) -> dict[str, Any]:
    """Answer the problems that are left; returns what it was done with."""
    left = log.unfinished(problems)
    if not left:
        return {}
    # A search calls the sampler once a step, and bars of many workers would write over one another: then it is problems
    # that are counted. Greedy answers and samples come so many at a time that the sampler's bar says more.
    counted = spec.decode.needs == {"scorer"} or not isinstance(spec.crew, LocalExecutor)
    if counted:
        context = replace(context, sampler=quiet(context.sampler))
    with (
        spec.crew.open(context) as crew,
        Progress("problem", len(problems), len(log.done), enabled=counted) as progress,
    ):
        try:
            for found in crew.finish(groups(left, spec.live, crew.count, len(left))):
                log.add(found)
                progress.advance()
        except Outage as error:
            raise Outage(f"{error}; {KEPT}") from None
        provenance: dict[str, Any] = crew.provenance
        return provenance


def _render(problems: Sequence[Problem], asking: Asking) -> tuple[list[Problem], list[Prompt], dict[str, str]]:
    """The problems that can be asked, the prompt that the model goes on from for each, and why others cannot, by id."""
    asked, prompts, refused = [], [], {}
    for problem in problems:
        try:
            prompts.append(asking.prompt(problem))
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


def _write(
    folder: Path, summary: dict[str, Any], problems: Sequence[Problem], log: AttemptLog, refused: Mapping[str, str]
) -> None:
    """The files of an evaluation under their final names, unless problems are to be tried again."""
    left_out = [{"problem": name, "reason": why} for name, why in refused.items()]
    left_out += [{"problem": one.problem, "reason": one.failed, "answer": one.said} for one in log.failed.values()]
    if left_out:
        write_jsonl(folder / QUARANTINE, left_out)
    else:
        (folder / QUARANTINE).unlink(missing_ok=True)
    if log.failed:
        write_json(folder / UNFINISHED, redact(summary))
        return
    write_jsonl(folder / ATTEMPTS, map(row_of, log.attempts(problems)))
    # The summary last: readers take a folder without one for no evaluation, whatever has stopped this.
    write_json(folder / SUMMARY, redact(summary))  # a model's path may hold what a reference stands for
    for path in (log.path, folder / UNFINISHED):
        path.unlink(missing_ok=True)
