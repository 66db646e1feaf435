"""What follows a training: evaluating its model and the base it started from, and the report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from stepdpo.cli import processes as workers
from stepdpo.cli.jobs import CONFIG, run_in
from stepdpo.cli.overrides import check as check_words
from stepdpo.cli.overrides import composed, groups, normalise
from stepdpo.core.config import build
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.package_data import conf, packaged
from stepdpo.runtime import run_folder as runs

LAUNCH_ONLY = ("run", "runs", "force", "tasks")


def evaluate_tasks(
    folder: Path, config: DictConfig, choices: Mapping[str, str], settings: Mapping[str, Any], given: Sequence[str]
) -> dict[str, Any]:
    """`stepdpo eval`: the tasks one after another, into `folder/eval/`; the last answer, or the first bad one."""
    names_model = any(word.partition("=")[0] in ("model", "model.path") for word in given)
    if settings["run"] and (folder / "model" / "config.json").is_file():
        if names_model:
            raise UserError(f"{folder} has a model of its own; leave model= out, or choose another run name")
        with open_dict(config):
            config.model = pretrained(folder / "model")
    elif settings["run"] and (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no finished model; resume its training first")
    elif settings["run"] and not names_model:
        raise UserError(f"{folder}: no such run; {nearest(folder.name, _finished(folder.parent))}")
    answer: dict[str, Any] = {"code": workers.OK, "message": "", "outcome": {}}
    for task in list(settings["tasks"] or [choices["task"]]):
        one = config
        if settings["tasks"]:
            one = OmegaConf.create(OmegaConf.to_container(config, resolve=False))  # type: ignore[assignment]
            one.task = composed("eval", [f"task={task}"]).task
        place, force = evaluation_folder(folder, one, choices), bool(settings["force"])
        if (place / "summary.json").is_file() and not force:
            raise UserError(f"{place} already holds an evaluation; force=true replaces it")
        answer = run_in(place, "eval", one, {**choices, "task": task}, force=force)
        if answer["code"] != workers.OK:
            break
    return answer


def evaluate_after_training(
    folder: Path,
    trained: DictConfig,
    choices: Mapping[str, str],
    tasks: Sequence[str],
    words: Sequence[str],
    root: Path,
) -> None:
    """Evaluate a finished run and (once) its base on `tasks`, then write the run's report."""
    for task in tasks:
        base = evaluate_base(evaluation_config(task, words, trained), choices, root, task)
        config = evaluation_config(task, words, trained, folder / "model")
        place = evaluation_folder(folder, config, choices)
        answer = run_in(place, "eval", config, {**choices, "task": task}, force=place.is_dir())
        _must(answer, f"evaluating {folder.name} on {task}")
        name_base(place, base, folder)
    report_on([folder], folder)


def evaluation_config(task: str, words: Sequence[str], trained: DictConfig, model: Path | None = None) -> DictConfig:
    """The configuration of an evaluation of `model` (else of what a training starts from), under its template."""
    config = composed("eval", [f"task={task}", *words])
    with open_dict(config):
        for key in LAUNCH_ONLY:
            config.pop(key, None)
        config.template = trained.template
        config.model = trained.model if model is None else pretrained(model)
    return config


def name_base(place: Path, base: Path | None, folder: Path) -> None:
    """Write into an evaluation of the run `folder` which base it is to be held against."""
    if base:
        summary = runs.read_json(place / "summary.json")
        runs.write_json(place / "summary.json", {**summary, "base": os.path.relpath(base, folder.parent)})


def evaluate_base(config: DictConfig, choices: Mapping[str, str], root: Path, task: str) -> Path | None:
    """The run folder of the base's evaluation: reused while model, task and settings are the same.

    None where the training starts from no model at all.
    """
    if not config.model.get("path"):
        return None
    name = f"base-{_model_name(str(config.model.path))}-{choices.get('template', 'native')}"
    folder = runs.run_folder(root, re.sub(r"[^\w=,+.@-]+", "-", name))
    place = evaluation_folder(folder, config, choices)
    stamp = {"config": OmegaConf.to_container(config, resolve=False), "files": _stamp(str(config.model.path))}
    known = place / "base.json"
    if (place / "summary.json").is_file() and known.is_file() and runs.read_json(known) == stamp:
        print(f"base: using {place}", flush=True)
        return folder
    answer = run_in(place, "eval", config, {**choices, "task": task}, force=place.is_dir())
    _must(answer, f"evaluating the base on {task}")
    runs.write_json(known, stamp)
    return folder


def _model_name(path: str) -> str:
    """The last telling part of a model's path."""
    parts = [part for part in path.removeprefix("pkg://").split("/") if part not in ("", ".", "model")]
    return parts[-1] if parts else "model"


def _stamp(path: str) -> list[list[Any]]:
    """Names, sizes and times of a local model's files; empty for a hub id."""
    folder = Path(packaged(path))
    return sorted([f.name, f.stat().st_size, f.stat().st_mtime] for f in folder.iterdir()) if folder.is_dir() else []


def pretrained(path: Path) -> DictConfig:
    """The part of a configuration that is the model in a folder."""
    model: DictConfig = composed("eval", ["model=pretrained", f"model.path='{path}'"]).model
    return model


def evaluation_folder(folder: Path, config: DictConfig, choices: Mapping[str, str]) -> Path:
    """Where a run keeps an evaluation."""
    decode = choices.get("decode", "greedy")
    return folder / "eval" / (str(config.task.name) + ("" if decode == "greedy" else f"-{decode}"))


def _must(answer: Mapping[str, Any], what: str) -> None:
    if answer["code"] != workers.OK:
        raise UserError(f"{what} failed: {answer['message']}")


def _finished(root: Path) -> list[str]:
    return [p.name for p in root.iterdir() if (p / "model").is_dir()] if root.is_dir() else []


def report_on(folders: Sequence[Path], out: Path, base: Path | None = None, control: Path | None = None) -> None:
    """Write and print the report of some runs."""
    from stepdpo.report.make import report

    report(folders, base, out, control)


def report_sweep(sweep: Path, folders: Sequence[Path]) -> None:
    """One report over all jobs of a sweep that were evaluated."""
    evaluated = [folder for folder in folders if (folder / "eval").is_dir()]
    if evaluated:
        report_on(evaluated, sweep)
        print(f"report over {len(evaluated)} jobs: {sweep / 'report.md'}")
    else:
        print(f"{len(folders)} jobs in {sweep}; then=[TASK] evaluates each and reports on all")


def report_runs(names: Sequence[str], base: str | None, control: str | None, root: Path) -> None:
    """`stepdpo report`: names or folders; a sweep's folder stands for its jobs."""
    folders = [_find(name, root) for name in names]
    jobs = [job for folder in folders for job in (sorted(folder.glob("job-*")) or [folder])]
    against = _find(base, root) if base else None
    report_on(jobs, folders[0], against, _find(control, root) if control else None)


def _find(name: str, root: Path) -> Path:
    for place in (root / name, Path(name)):
        if place.is_dir():
            return place
    known = [p.name for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    raise UserError(f"{name}: no such run; {nearest(name, known)}")


def check_data(
    data: str, level: str, tasks: Sequence[str], max_bad: str, model: str | None, template: str, weighed: int,
    out: Path | None,
) -> None:  # fmt: skip
    """`stepdpo check`: find the data set, the level, the tasks and the model by name, then look."""
    from stepdpo.cli.check import check

    part = composed("train", [f"level={level}"]).level if level in ("step", "instance") else None
    if part is None:
        raise UserError(f"level={level}: {nearest(level, ['step', 'instance'])}")
    evaluation_config = [build(composed("eval", [f"task={t}"]).task) for t in tasks]
    parts: dict[str, Any] = {}
    if model is not None:
        known = groups([conf()])
        words = normalise("eval", [f"model={model}", f"template={template}"], known)
        node = check_words("eval", words, [conf()], sweep=False)
        parts = {"model": build(node.model, where="model"), "template": build(node.template, where="template")}
    try:
        check(data, level=build(part), tasks=evaluation_config, max_bad=max_bad, weighed=weighed, out_json=out, **parts)
    except ValueError as error:
        raise UserError(f"max_bad: {error}") from error
