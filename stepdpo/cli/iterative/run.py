"""Online rounds: collect pairs with the policy, train on them, and again with what came of it.

    runs/NAME/  config.yaml  manifest.json    what the rounds have in common
                round-1/pairs/                a run of `stepdpo pairs`: preferences.jsonl, summary.json, ...
                round-1/train/                a run of `stepdpo train`: metrics.jsonl, checkpoints/, model/, eval/
                round-2/...
                model/  eval/                 those of the last round
                rounds.json  rounds.md        a row a round

Every stage is a run of its own, so it is stopped, resumed and looked at like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import processes as workers
from stepdpo.cli.iterative.finish import conclude
from stepdpo.cli.iterative.plan import IterationPlan, pairs_choices, pairs_config, train_config
from stepdpo.cli.jobs import CONFIG, finished, run_in
from stepdpo.cli.post_training import evaluation_config, evaluation_folder
from stepdpo.core.errors import UserError
from stepdpo.runtime import run_folder as runs

SECONDS = "seconds.json"
"""Beside the folders of a round: what its training took."""


def run(plan: IterationPlan, *, force: bool, resume: bool, given: Sequence[str]) -> dict[str, Any]:
    """All rounds, from where the run was stopped; returns the answer of the last stage."""
    then = {"then": list(plan.tasks), "then_with": runs.redact_argv(list(plan.task_words))}
    note = {"rounds": plan.rounds.plain(), **then}

    def work(config: DictConfig) -> dict[str, Any]:
        path = plan.folder / runs.MANIFEST
        runs.write_json(path, {**runs.read_json(path), **note})
        return _rounds(replace(plan, config=config))

    return run_in(
        plan.folder, "train", plan.config, plan.choices, force=force, resume=resume, given=given, note=note, work=work
    )


def _rounds(plan: IterationPlan) -> dict[str, Any]:
    """One after another; a round that cannot be is the end, with the model of the one before."""
    done, answer = 0, _answer()
    while done < plan.rounds.count:
        print(f"\nround {done + 1} of {plan.rounds.count}", flush=True)
        answer = _guarded(lambda number: _make(plan, number), done + 1)
        if answer["code"] != workers.OK:
            break
        done += 1
        seen = _guarded(lambda number: _look(plan, number), done)
        if seen["code"] != workers.OK:
            return {**seen, "message": f"evaluating round {done}: {seen['message']}", "begun": True}
    if not done:
        return {**_tidied(answer, plan), "begun": finished(plan.pairs(1))}
    if answer["code"] in (workers.OK, workers.USER_ERROR):
        conclude(plan, done)
    if answer["code"] == workers.USER_ERROR:
        kept = f"round {done + 1} did not come about, {plan.folder / 'model'} is that of round {done}"
        answer = {**answer, "message": f"{kept}: {answer['message']}"}
    return {**answer, "begun": True}


def _guarded(work: Callable[[int], dict[str, Any]], number: int) -> dict[str, Any]:
    """The answer of some work on a round, also where it is one for the user to mend."""
    try:
        return work(number)
    except UserError as error:
        return _answer(workers.USER_ERROR, str(error))


def _tidied(answer: dict[str, Any], plan: IterationPlan) -> dict[str, Any]:
    """The answer to a run in which nothing began, whose first round leaves no empty folder."""
    place = plan.pairs(1).parent
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    return answer


def _make(plan: IterationPlan, number: int) -> dict[str, Any]:
    """The pairs and the model of a round, as far as they are not there."""
    answer = _stage(plan.pairs(number), "pairs", lambda: pairs_config(plan, number), pairs_choices(plan))
    if answer["code"] != workers.OK or finished(plan.train(number)):
        return answer
    began = time.monotonic()
    choices = {**plan.choices, "dataset": "jsonl", **({"model": "pretrained"} if number > 1 else {})}
    answer = _stage(plan.train(number), "train", lambda: train_config(plan, number), choices)
    path = plan.pairs(number).with_name(SECONDS)
    before = runs.read_json(path)["train"] if path.is_file() else 0.0
    runs.write_json(path, {"train": round(before + time.monotonic() - began, 2)})
    return answer


def _look(plan: IterationPlan, number: int) -> dict[str, Any]:
    """Evaluate the model of a round on every task, unless just that has been done."""
    folder = plan.train(number)
    for task in plan.tasks:
        config = evaluation_config(task, plan.task_words, plan.config, folder / "model")
        place = evaluation_folder(folder, config, plan.choices)
        if finished(place) and OmegaConf.load(place / CONFIG) == config:
            continue
        answer = run_in(place, "eval", config, {**plan.choices, "task": task}, force=place.is_dir())
        if answer["code"] != workers.OK:
            return answer
    return _answer()


def _stage(folder: Path, verb: str, config: Callable[[], DictConfig], choices: Mapping[str, str]) -> dict[str, Any]:
    if finished(folder):
        return _answer()
    begun = folder.is_dir() and any(folder.iterdir())
    return run_in(folder, verb, config(), choices, resume=begun)


def _answer(code: int = workers.OK, message: str = "") -> dict[str, Any]:
    return {"code": code, "message": message, "outcome": {}}
