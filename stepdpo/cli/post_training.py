"""What follows a training: evaluating its model and the base it started from, and the report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from stepdpo.cli.evaluations import evaluation_folder, run_evaluation
from stepdpo.cli.job_config import FollowUp, evaluation_config
from stepdpo.cli.job_result import JobResult
from stepdpo.cli.jobs import started_with
from stepdpo.cli.overrides import composed
from stepdpo.cli.reports import report_on
from stepdpo.core.config import TARGET, build
from stepdpo.core.config_file import load_config, with_current_targets, with_later_settings
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import PREFIX, packaged
from stepdpo.runtime.atomic_io import read_json, write_json
from stepdpo.runtime.run_folder import CONFIG, QUARANTINE, SUMMARY, run_path


def follow_up(folder: Path, given: FollowUp, runs: Path, already_finished: bool) -> None:
    """Of a resumed run what it was started with follows, unless the words now say it anew; of a finished one, once."""
    manifest = started_with(folder)
    if already_finished and not given.tasks and (folder / "report.json").is_file():
        return
    what = given.or_as_started(manifest)
    if what.tasks:
        evaluate_after_training(folder, load_config(folder / CONFIG), manifest["choices"], what, runs)


def evaluate_after_training(
    folder: Path, training: DictConfig, choices: Mapping[str, str], what: FollowUp, runs: Path
) -> None:
    """Evaluate a finished run and (once) its base on every task, then write the run's report."""
    for task in what.tasks:
        base = evaluate_base(evaluation_config(task, what.words, training), choices, runs, task)
        config = evaluation_config(task, what.words, training, folder / "model")
        place = evaluation_folder(folder, config, choices)
        result = run_evaluation(place, config, choices, task)
        _raise_unless_ok(result, place, f"evaluating {folder.name} on {task}")
        name_base(place, base, folder)
    report_on([folder], folder)


def evaluate_base(config: DictConfig, choices: Mapping[str, str], runs: Path, task: str) -> Path | None:
    """The run folder of the base's evaluation: reused while model, task and settings are the same.

    None where the training starts from no model at all.
    """
    if not config.model.get("path"):
        return None
    config = as_base_can(config)
    name = f"base-{_model_name(str(config.model.path))}-{choices.get('template', 'native')}"
    folder = run_path(runs, re.sub(r"[^\w=,+.@-]+", "-", name))
    place = evaluation_folder(folder, config, choices)
    stamp = {"config": OmegaConf.to_container(config, resolve=False), "files": _stamp(str(config.model.path))}
    known = place / "base.json"
    if (place / SUMMARY).is_file() and known.is_file():
        before = with_current_targets(read_json(known))
        if with_later_settings(before, stamp) == stamp:
            print(f"base: using {place}", flush=True)
            return folder
    result = run_evaluation(place, config, choices, task)
    _raise_unless_ok(result, place, f"evaluating the base on {task}")
    write_json(known, stamp)
    return folder


def as_base_can(config: DictConfig) -> DictConfig:
    """An evaluation of a base, which may lack what the scorer looks at: a head that the training has made.

    It is then evaluated greedily, which is said.
    """
    scorer = config.get("scorer")
    if not scorer or str(scorer.get(TARGET)).endswith(".NoScorer"):
        return config
    try:
        build(scorer).must_fit(build(config.model))
    except UserError as error:
        print(f"base: {error}; so it is evaluated by decode=greedy, without a scorer", flush=True)
    else:
        return config
    plain, config = composed("eval", []), deepcopy(config)
    with open_dict(config):
        if "max_tokens" in config.decode:
            plain.decode.max_tokens = config.decode.max_tokens
        config.decode, config.scorer, config.seeds = plain.decode, plain.scorer, plain.seeds
    return config


def name_base(place: Path, base: Path | None, folder: Path) -> None:
    """Write into an evaluation of the run `folder` which base it is to be held against."""
    if base:
        summary = read_json(place / SUMMARY)
        write_json(place / SUMMARY, {**summary, "base": os.path.relpath(base, folder.parent)})


def _model_name(path: str) -> str:
    """The last telling part of a model's path."""
    parts = [part for part in path.removeprefix(PREFIX).split("/") if part not in ("", ".", "model")]
    return parts[-1] if parts else "model"


def _stamp(path: str) -> list[list[Any]]:
    """Names, sizes and times of a local model's files; empty for a hub id."""
    # No hash of the bytes: that would read a large model whole before every evaluation that is then not needed.
    folder = Path(packaged(path))
    return sorted([f.name, f.stat().st_size, f.stat().st_mtime] for f in folder.iterdir()) if folder.is_dir() else []


def _raise_unless_ok(result: JobResult, place: Path, what: str) -> None:
    if not result.ok:
        raise UserError(f"{what} failed: {result.message}")
    if not (place / SUMMARY).is_file():
        raise UserError(f"{what}: some problems have no answer (see {place / QUARANTINE}): resume=true tries again")
