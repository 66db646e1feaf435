"""From the words of a command to a run folder and the processes that work in it; with `overrides` it owns Hydra."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from stepdpo.cli import flags, overrides, shorthands
from stepdpo.cli.evaluations import evaluate_tasks
from stepdpo.cli.iterative.config import requested
from stepdpo.cli.iterative.plan import IterationPlan
from stepdpo.cli.iterative.run import run_iterations
from stepdpo.cli.job_config import LaunchSettings, split, task_words
from stepdpo.cli.job_result import ExitCode, JobResult
from stepdpo.cli.jobs import run_in, started_with
from stepdpo.cli.machine_defaults import for_this_machine
from stepdpo.cli.post_training import follow_up
from stepdpo.cli.rehearsal import rehearse
from stepdpo.cli.reports import report_sweep
from stepdpo.core.config import config_folders
from stepdpo.core.errors import UserError, nearest, printable
from stepdpo.core.package_data import conf
from stepdpo.runtime.disk_space import no_space
from stepdpo.runtime.run_folder import REPLACED, run_path
from stepdpo.runtime.secrets import redact_text


class Stopped(BaseException):
    """A signal ended a job, and with it the jobs that would have followed."""


@dataclass(frozen=True)
class Job:
    """One job of a command, as Hydra composed it."""

    verb: str
    words: tuple[str, ...]
    """The settings given, without Hydra's own."""
    choices: Mapping[str, str]
    """The option of every group."""
    settings: LaunchSettings
    config: DictConfig
    """The worker's."""
    output: Path
    """Its folder, where it is a job of a sweep."""
    sweep: Path | None
    """The sweep's folder; None where there is but this job."""


def launch(verb: str, words: Sequence[str]) -> int:
    """Run a verb; returns the exit code. Raises UserError for words that must be mended."""
    overrides.refuse_secrets(words)
    flags.check(shorthands.split(words)[0])
    with config_folders(shorthands.split(words)[2][1:]):
        return _launch(verb, words)


def _launch(verb: str, words: Sequence[str]) -> int:
    hydra_words = _checked(verb, words)
    ended: list[tuple[Job, JobResult]] = []

    def run(config: DictConfig) -> float | None:
        job = _composed(verb, config)
        result = _run(job)
        ended.append((job, result))
        if result.signal:
            raise Stopped  # no Exception: Hydra would take it for a failed job and print a traceback
        return result.objective

    sys.argv = [f"stepdpo {verb}", *hydra_words]  # Hydra reads them there, and the manifest keeps them
    with suppress(Stopped):
        hydra.main(version_base="1.3", config_path=str(conf()), config_name=verb)(run)()
    if ended and (sweep := ended[0][0].sweep):
        _print_table(sweep, ended)
        trained = [job.output for job, result in ended if verb == "train" and result.ok]
        if trained:
            report_sweep(sweep, trained)
    return max((result.code for _, result in ended), default=ExitCode.OK)


def _checked(verb: str, words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them, after a rehearsal; what only prints a configuration needs no more than compose."""
    switches, given, folders = shorthands.split(words)
    given = shorthands.normalise(verb, given, shorthands.groups(folders))
    names = set(map(flags.full, switches))
    first = overrides.check(verb, given, sweep=flags.SWEEP in names)
    if package := flags.value_of(flags.PACKAGE, switches):
        overrides.check_package(package, first)
    if not names & flags.PRINTING:
        ahead: list[tuple[str, DictConfig]] = []
        for words_of_job in overrides.variants(given):
            composed = first if words_of_job == given else overrides.check(verb, words_of_job, sweep=False)
            settings, config = split(composed)
            if flags.SWEEP in names:
                _refuse_in_sweep(settings, given)
            ahead += _evaluations(settings, words_of_job)
            if settings.rounds.get("count"):
                if config.adapter.get("start"):
                    raise UserError(
                        "adapter.start: rounds sample from whole models; merge the adapter into its base, and start "
                        "from that by model=FOLDER"
                    )
                config.dataset = overrides.composed("train", ["dataset=tinymath"]).dataset  # rounds make their own
            if not settings.resume:  # of a run that goes on, what it was started with counts
                ahead.append(("", config))
                if verb == "train" and (iterations := requested(settings.rounds, {}, words_of_job)):
                    ahead.append(("rounds.pairs_with: ", split(overrides.composed("pairs", iterations.words))[1]))
        rehearse(ahead)
    return [*switches, *given]


def _refuse_in_sweep(settings: LaunchSettings, given: Sequence[str]) -> None:
    """UserError for settings of one run: every job of a sweep begins in a new folder of its own."""
    if settings.run:
        raise UserError("run: every job of a sweep has a folder of its own; hydra.sweep.dir names the one of all")
    if settings.resume and not any(shorthands.key_of(word) == "hydra.sweep.dir" for word in given):
        raise UserError("resume: a sweep begins anew; go on with its jobs one by one, as in run=sweep-.../job-0")


def _evaluations(settings: LaunchSettings, given: Sequence[str]) -> list[tuple[str, DictConfig]]:
    """Those that are to come, without their models; before each, what its errors begin with.

    Raises UserError for a task, or a word for it, that would be found wrong only once other work is done.
    """
    found = []
    if settings.follow_up.words and not (settings.follow_up.tasks or settings.resume):
        raise UserError("then_with: words for evaluations, of which there are none; then=[TASK] names them")
    for where, tasks, words in (
        ("then", settings.follow_up.tasks, settings.follow_up.words),
        ("tasks", settings.tasks, task_words(given)),
    ):
        for task in tasks:
            try:
                _, config = split(overrides.check("eval", [f"task={task}", *words], sweep=False))
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            found.append((f"{where}: ", config))
    return found


def _composed(verb: str, config: DictConfig) -> Job:
    """What Hydra says of the job that it has just begun."""
    state = HydraConfig.get()
    settings, worker_config = split(config)
    words = tuple(state.overrides.task)
    choices = {k: str(v) for k, v in state.runtime.choices.items() if "/" not in k and v is not None}
    if verb != "train":
        # What a resumed run was started with counts, so nothing is said then.
        worker_config, options = for_this_machine(verb, worker_config, words, say=not settings.resume)
        choices |= options
    return Job(
        verb=verb,
        words=words,
        choices=choices,
        settings=settings,
        config=worker_config,
        output=Path(state.runtime.output_dir),
        sweep=Path(str(state.sweep.dir)) if state.mode is RunMode.MULTIRUN else None,
    )


def _run(job: Job) -> JobResult:
    """Run a job; its mistakes are printed and counted, so that the other jobs of a sweep go on."""
    if job.sweep:
        print(f"\n{job.output.name}: {' '.join(job.words)}", flush=True)
    try:
        folder = job.output if job.sweep else _run_path(job)
        if job.settings.resume and not job.settings.force and not job.sweep:
            _must_be_a_run(folder, job.verb)
        result = {"train": _train, "eval": _evaluate, "pairs": _make_pairs}[job.verb](job, folder)
    except UserError as error:
        result = JobResult(ExitCode.USER_ERROR, str(error))
    except OSError as error:
        result = JobResult(ExitCode.FAILED, no_space(error, job.settings.runs) or str(error))
    if result.message:
        print(f"error: {printable(redact_text(result.message))}", file=sys.stderr, flush=True)
    return result


def _must_be_a_run(folder: Path, verb: str) -> None:
    """UserError for a name under which nothing was started; a misspelt one must not train anew in silence."""
    if started_with(folder) or (folder / REPLACED).is_dir() or (verb == "eval" and (folder / "eval").is_dir()):
        return
    runs = [path.name for path in folder.parent.iterdir() if started_with(path)] if folder.parent.is_dir() else []
    advice = f"{nearest(folder.name, runs)} (without resume=true a new one is started)"
    raise UserError(f"resume=true: there is no run {folder}; {advice}")


def _train(job: Job, folder: Path) -> JobResult:
    """One training, or rounds of them, and what is to follow."""
    settings = job.settings
    force, resume = settings.force, settings.resume
    manifest = started_with(folder) if resume else {}
    iterations = requested(settings.rounds, manifest, job.words)
    if iterations:
        evaluations = settings.follow_up.or_as_started(manifest)
        plan = IterationPlan(folder, job.config, job.choices, iterations, evaluations, settings.runs)
        return run_iterations(plan, force=force, resume=resume, given=job.words)
    note = settings.follow_up.to_manifest()
    result = run_in(folder, "train", job.config, job.choices, force=force, resume=resume, given=job.words, note=note)
    if result.ok:
        follow_up(folder, settings.follow_up, settings.runs, result.already_finished)
    return result


def _evaluate(job: Job, folder: Path) -> JobResult:
    return evaluate_tasks(folder, job.config, job.choices, job.settings, job.words)


def _make_pairs(job: Job, folder: Path) -> JobResult:
    force, resume = job.settings.force, job.settings.resume
    return run_in(folder, "pairs", job.config, job.choices, force=force, resume=resume, given=job.words)


def _run_path(job: Job) -> Path:
    """The run folder that is named, else one after the options of the job."""
    choices, settings = job.choices, job.settings
    if settings.run:
        return run_path(settings.runs, settings.run)
    model = choices.get("model", "model")
    if model == "pretrained":
        model = Path(str(job.config.model.path)).name
    parts = {
        "train": [choices.get("algo", ""), choices.get("level", ""), choices.get("template", ""), model],
        "pairs": ["pairs", choices.get("pairs", ""), choices.get("task", ""), model],
        "eval": ["eval", model, choices.get("template", "")],
    }[job.verb]
    if job.verb == "train" and settings.rounds.get("count"):
        parts.append("rounds")
    if job.verb != "eval":
        parts.append(f"s{job.config.get('seed', 0)}")
    return run_path(settings.runs, re.sub(r"[^\w=,+.@-]+", "-", "-".join(parts)))


def _print_table(sweep: Path, ended: Sequence[tuple[Job, JobResult]]) -> None:
    """How every job of a sweep ended."""
    print(f"\n{len(ended)} jobs in {sweep}")
    for job, result in ended:
        print(f"  {job.output.name:<8}{' '.join(job.words)}  {result.summary}", flush=True)
