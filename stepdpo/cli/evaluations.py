"""Evaluations as jobs: those of `stepdpo eval`, one task after another, and where a run keeps each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from stepdpo.cli.job_config import LaunchSettings, with_model, with_task
from stepdpo.cli.job_result import JobResult
from stepdpo.cli.jobs import run_in
from stepdpo.core.config import TARGET
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError, nearest
from stepdpo.runtime.run_folder import CONFIG, SUMMARY


def evaluate_tasks(
    folder: Path, config: DictConfig, choices: Mapping[str, str], settings: LaunchSettings, given: Sequence[str]
) -> JobResult:
    """`stepdpo eval`: the tasks one after another, into `folder/eval/`; the last result, or the first bad one."""
    if _has_own_model(folder, settings, given):
        config = with_model(config, folder / "model")
    result = JobResult()
    for task in settings.tasks or (choices["task"],):
        one = with_task(config, task, given) if settings.tasks else config
        place = evaluation_folder(folder, one, choices)
        if (place / SUMMARY).is_file() and not (settings.force or settings.resume):
            raise UserError(f"{place} already holds an evaluation; force=true replaces it")
        result = _run(place, one, choices, task, given, force=settings.force, resume=settings.resume)
        if not result.ok:
            break
    return result


def run_evaluation(place: Path, config: DictConfig, choices: Mapping[str, str], task: str) -> JobResult:
    """One evaluation that follows a training, whose `choices` these may be; in a run folder of its own.

    What is there is gone on with if it is the same evaluation, and replaced otherwise.
    """
    path = place / CONFIG
    same = path.is_file() and load_config(path) == config and not (place / SUMMARY).is_file()
    return _run(place, config, choices, task, force=place.is_dir() and not same, resume=same)


def _run(
    place: Path, config: DictConfig, choices: Mapping[str, str], task: str, given: Sequence[str] = (), *,
    force: bool, resume: bool,
) -> JobResult:  # fmt: skip
    return run_in(place, "eval", config, {**choices, "task": task}, force=force, resume=resume, given=given)


def evaluation_folder(folder: Path, config: DictConfig, choices: Mapping[str, str]) -> Path:
    """Where a run keeps an evaluation: those by different decoders side by side."""
    decode, scorer = _option(config, choices, "decode", "greedy"), _option(config, choices, "scorer", "none")
    parts = [str(config.task.name), *([decode] if decode != "greedy" else []), *([scorer] if scorer != "none" else [])]
    return folder / "eval" / "-".join(parts)


def _option(config: DictConfig, choices: Mapping[str, str], group: str, usual: str) -> str:
    """The option of a group; the choices of a training know no decoders, whose modules are named as their options."""
    part = config.get(group)
    target = str(part[TARGET]) if part is not None and TARGET in part else usual
    return choices.get(group) or target.split(".")[-2 if "." in target else -1]


def _has_own_model(folder: Path, settings: LaunchSettings, given: Sequence[str]) -> bool:
    """Whether the run that is named has a model, which is then the one to evaluate; UserError where none is meant."""
    names_model = any(word.partition("=")[0] in ("model", "model.path") for word in given)
    if not settings.run:
        return False
    if (folder / "model" / "config.json").is_file():
        if names_model:
            raise UserError(f"{folder} has a model of its own; leave model= out, or choose another run name")
        return True
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no finished model; resume its training first")
    if not names_model:
        raise UserError(f"{folder}: no such run; {nearest(folder.name, _with_a_model(folder.parent))}")
    return False


def _with_a_model(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if (path / "model").is_dir()] if root.is_dir() else []
