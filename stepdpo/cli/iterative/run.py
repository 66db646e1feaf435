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

from omegaconf import DictConfig

from stepdpo.cli.evaluations import evaluation_folder, run_evaluation
from stepdpo.cli.iterative.finish import conclude
from stepdpo.cli.iterative.plan import IterationPlan, pairs_choices, pairs_config, train_choices, train_config
from stepdpo.cli.job_config import evaluation_config
from stepdpo.cli.job_result import ExitCode, JobResult
from stepdpo.cli.jobs import finished, run_in
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import read_json, write_json
from stepdpo.runtime.manifest import MANIFEST
from stepdpo.runtime.run_folder import CONFIG, SECONDS


def run_iterations(plan: IterationPlan, *, force: bool, resume: bool, given: Sequence[str]) -> JobResult:
    """All rounds, from where the run was stopped; returns the result of the last stage."""
    note = {"rounds": plan.iterations.plain(), **plan.evaluations.to_manifest()}

    def work(config: DictConfig) -> JobResult:
        # Also of a resumed run, whose manifest is there: rounds may be added, and the next resume must know them.
        path = plan.folder / MANIFEST
        write_json(path, {**read_json(path), **note})
        return _iterations(replace(plan, config=config))

    return run_in(
        plan.folder, "train", plan.config, plan.choices, force=force, resume=resume, given=given, note=note, work=work
    )


def _iterations(plan: IterationPlan) -> JobResult:
    """One after another; a round that cannot be is the end, with the model of the one before."""
    done, result = 0, JobResult()
    while done < plan.iterations.count:
        print(f"\nround {done + 1} of {plan.iterations.count}", flush=True)
        result = _guarded(_pairs_and_training, plan, done + 1)
        if not result.ok:
            break
        done += 1
        evaluated = _guarded(_evaluate, plan, done)
        if not evaluated.ok:
            return replace(evaluated, message=f"evaluating round {done}: {evaluated.message}", begun=True)
    if not done:
        _remove_if_empty(plan.pairs(1).parent)
        return replace(result, begun=finished(plan.pairs(1)))
    if result.code in (ExitCode.OK, ExitCode.USER_ERROR):
        conclude(plan, done)
    if result.code == ExitCode.USER_ERROR:
        kept = f"round {done + 1} did not come about, {plan.folder / 'model'} is that of round {done}"
        result = replace(result, message=f"{kept}: {result.message}")
    return replace(result, begun=True)


def _guarded(stage: Callable[[IterationPlan, int], JobResult], plan: IterationPlan, number: int) -> JobResult:
    """The result of some work on a round, also where it is an error for the user to mend."""
    try:
        return stage(plan, number)
    except UserError as error:
        return JobResult(ExitCode.USER_ERROR, str(error))


def _remove_if_empty(folder: Path) -> None:
    """The folder of a first round in which nothing began; the rest is for `run_in` to tidy up."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _pairs_and_training(plan: IterationPlan, number: int) -> JobResult:
    """The pairs and the model of a round, as far as they are not there."""
    result = _stage(plan.pairs(number), "pairs", lambda: pairs_config(plan, number), pairs_choices(plan))
    if not result.ok or finished(plan.train(number)):
        return result
    began = time.monotonic()
    result = _stage(plan.train(number), "train", lambda: train_config(plan, number), train_choices(plan, number))
    path = plan.pairs(number).with_name(SECONDS)
    before = read_json(path)["train"] if path.is_file() else 0.0  # of a training that was stopped
    write_json(path, {"train": round(before + time.monotonic() - began, 2)})
    return result


def _evaluate(plan: IterationPlan, number: int) -> JobResult:
    """Evaluate the model of a round on every task, unless just that has been done."""
    folder = plan.train(number)
    for task in plan.evaluations.tasks:
        config = evaluation_config(task, plan.evaluations.words, plan.config, folder / "model")
        place = evaluation_folder(folder, config, plan.choices)
        if finished(place) and load_config(place / CONFIG) == config:
            continue
        result = run_evaluation(place, config, plan.choices, task)
        if not result.ok:
            return result
    return JobResult()


def _stage(folder: Path, verb: str, config: Callable[[], DictConfig], choices: Mapping[str, str]) -> JobResult:
    """A run of its own; its configuration is made only now, as it rests on what the stages before have left."""
    if finished(folder):
        return JobResult()
    begun = folder.is_dir() and any(folder.iterdir())
    return run_in(folder, verb, config(), choices, resume=begun)
