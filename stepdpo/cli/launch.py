"""From the words of a command to a run folder and the processes that work in it; the owner of Hydra."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from stepdpo.cli import overrides as words_of
from stepdpo.cli import processes as workers
from stepdpo.cli.iterative import run as rounds
from stepdpo.cli.iterative.config import chosen
from stepdpo.cli.iterative.plan import IterationPlan
from stepdpo.cli.jobs import CONFIG, LAUNCH_KEYS, run_in
from stepdpo.cli.post_training import evaluate_after_training, evaluate_tasks, report_sweep
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.runtime import run_folder as runs


class Stopped(BaseException):
    """A signal ended a job, and with it the jobs that would have followed."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep: its folder's name, its words, and how it ended."""

    name: str
    words: str
    end: str


@dataclass
class Outcome:
    """What the jobs of one command came to."""

    codes: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    sweep: Path | None = None


def launch(verb: str, words: Sequence[str]) -> int:
    """Run a verb; returns the exit code. Raises UserError for words that must be mended."""
    flags, given, folders = words_of.split(words)
    given = words_of.normalise(verb, given, words_of.groups(folders))
    sweep = any(flag in ("-m", "--multirun") for flag in flags)
    if not any(flag.startswith(("--cfg", "-c", "--info", "--hydra-help")) for flag in flags):
        words_of.check(verb, given, folders, sweep)
    outcome = Outcome()

    def job(config: DictConfig) -> float | None:
        return _job(verb, config, outcome)

    sys.argv = [f"stepdpo {verb}", *flags, *given]
    with suppress(Stopped):
        hydra.main(version_base="1.3", config_path=str(conf()), config_name=verb)(job)()
    if outcome.sweep:
        _table(outcome)
        if verb == "train" and outcome.folders:
            report_sweep(outcome.sweep, outcome.folders)
    return max(outcome.codes, default=workers.OK)


def _table(outcome: Outcome) -> None:
    """How every job of a sweep ended."""
    print(f"\n{len(outcome.jobs)} jobs in {outcome.sweep}")
    for job in outcome.jobs:
        print(f"  {job.name:<8}{job.words}  {job.end}", flush=True)


def _job(verb: str, config: DictConfig, outcome: Outcome) -> float | None:
    """One job; its mistakes are printed and counted, so that the other jobs of a sweep go on."""
    state = HydraConfig.get()
    sweep = state.mode is RunMode.MULTIRUN
    choices = {k: str(v) for k, v in state.runtime.choices.items() if "/" not in k and v is not None}
    with open_dict(config):
        settings = {key: config.pop(key, None) for key in LAUNCH_KEYS}
    folder, words = Path(state.runtime.output_dir), list(state.overrides.task)
    if sweep:
        outcome.sweep = Path(str(state.sweep.dir))
        print(f"\n{folder.name}: {' '.join(words)}", flush=True)
    try:
        if not sweep:
            folder = _folder(verb, settings, config, choices)
        answer = _work(verb, folder, config, settings, choices, words)
        if answer["code"] == workers.OK and verb == "train":
            outcome.folders.append(folder)
    except UserError as error:
        answer = {"code": workers.USER_ERROR, "message": str(error), "outcome": {}}
    except OSError as error:
        answer = {"code": workers.FAILED, "message": str(error), "outcome": {}}
    if answer["message"]:
        print(f"error: {answer['message']}", file=sys.stderr, flush=True)
    outcome.codes.append(answer["code"])
    outcome.jobs.append(Job(folder.name, " ".join(words), _end(answer)))
    if answer.get("signal"):
        raise Stopped
    return _objective(answer["outcome"])


def _end(answer: Mapping[str, Any]) -> str:
    if answer["code"] != workers.OK:
        return f"exit {answer['code']}: {(answer['message'].splitlines() or ['?'])[0]}"
    objective = _objective(answer["outcome"])
    return "ok" if objective is None else f"ok ({objective:.4g})"


def _work(
    verb: str,
    folder: Path,
    config: DictConfig,
    settings: Mapping[str, Any],
    choices: Mapping[str, str],
    given: Sequence[str],
) -> dict[str, Any]:
    if verb == "eval":
        return evaluate_tasks(folder, config, choices, settings, given)
    force, resume = bool(settings.get("force")), bool(settings.get("resume"))
    tasks, extra = settings.get("then") or [], settings.get("then_with") or ""
    with_words = extra.split() if isinstance(extra, str) else [str(word) for word in extra]
    then = {"then": [str(task) for task in tasks], "then_with": with_words}
    if verb == "train":
        started = _started(folder) if resume else {}
        asked = chosen(settings.get("rounds"), started, given)
        if asked:
            then = _then(then, started)
            root = Path(str(settings["runs"]))
            plan = IterationPlan(folder, config, choices, asked, then["then"], then["then_with"], root)
            return rounds.run(plan, force=force, resume=resume, given=given)
    note = {"then": then["then"], "then_with": runs.redact_argv(then["then_with"])} if verb == "train" else {}
    answer = run_in(folder, verb, config, choices, force=force, resume=resume, given=given, note=note)
    if answer["code"] == workers.OK and verb == "train":
        _evaluate(folder, then, Path(str(settings["runs"])), bool(answer.get("finished")))
    return answer


def _evaluate(folder: Path, then: Mapping[str, list[str]], root: Path, finished: bool) -> None:
    """What should follow a training: of a resumed run what it was started with, unless the words now say it anew."""
    started = _started(folder)
    if not then["then"]:
        then = _then(then, started)
        if finished and (folder / "report.json").is_file():
            return
    trained = OmegaConf.load(folder / CONFIG)
    if then["then"]:
        assert isinstance(trained, DictConfig)
        evaluate_after_training(folder, trained, started["choices"], then["then"], then["then_with"], root)


def _started(folder: Path) -> dict[str, Any]:
    """What a run was started with; empty where there is none yet."""
    started: dict[str, Any] = runs.read_json(folder / runs.MANIFEST) if (folder / runs.MANIFEST).is_file() else {}
    return started


def _then(then: Mapping[str, list[str]], started: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is to follow: what the words say, else what the run was started with."""
    return dict(then) if then["then"] else {key: list(started.get(key, [])) for key in then}


def _folder(verb: str, settings: Mapping[str, Any], config: DictConfig, choices: Mapping[str, str]) -> Path:
    root = Path(str(settings["runs"]))
    if settings["run"]:
        return runs.run_folder(root, str(settings["run"]))
    model = choices.get("model", "model")
    if model == "pretrained":
        model = Path(str(config.model.path)).name
    parts = {
        "train": [choices.get("algo", ""), choices.get("level", ""), choices.get("template", ""), model],
        "pairs": ["pairs", choices.get("pairs", ""), choices.get("task", ""), model],
        "eval": ["eval", model, choices.get("template", "")],
    }[verb]
    if verb == "train" and settings["rounds"]["count"]:
        parts.append("rounds")
    if verb != "eval":
        parts.append(f"s{config.get('seed', 0)}")
    return runs.run_folder(root, re.sub(r"[^\w=,+.@-]+", "-", "-".join(parts)))


def _objective(outcome: Mapping[str, Any]) -> float | None:
    """The one number a sweeper may optimise: held-out accuracy, else the negative loss."""
    for key in ("heldout/rewards/accuracies", "accuracy"):
        if key in outcome:
            return float(outcome[key])
    loss = outcome.get("heldout/loss", outcome.get("loss"))
    return -float(loss) if loss is not None else None
