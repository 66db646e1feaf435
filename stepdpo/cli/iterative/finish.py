"""After the last round: its model where a plain run has it, the report, the table of rounds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stepdpo.cli.evaluations import evaluation_folder
from stepdpo.cli.iterative.plan import IterationPlan
from stepdpo.cli.job_config import evaluation_config
from stepdpo.cli.jobs import finished
from stepdpo.cli.post_training import evaluate_base, name_base
from stepdpo.cli.reports import report_on
from stepdpo.runtime.atomic_io import read_json, write_json, write_text
from stepdpo.runtime.run_folder import INSPECT

ROWS = "rounds.json"


def conclude(plan: IterationPlan, last: int) -> None:
    """The last model, and its evaluations, where a plain run has them; the report; the table of rounds."""
    folder, trained = plan.folder, plan.train(last)
    _put_model(plan, last)
    base: Path | None = None
    for task in plan.evaluations.tasks:
        config = evaluation_config(task, plan.evaluations.words, plan.config)
        base = evaluate_base(config, plan.choices, plan.runs, task)
        place = evaluation_folder(folder, config, plan.choices)
        if evaluation_folder(trained, config, plan.choices).is_dir():
            shutil.copytree(evaluation_folder(trained, config, plan.choices), place, dirs_exist_ok=True)
            name_base(place, base, folder)
    if plan.evaluations.tasks:
        report_on([folder], folder)
    _write_table(plan, last, base)


def _put_model(plan: IterationPlan, last: int) -> None:
    """The model of the last round as the run's own, unless it is that already; what was found of another is dropped."""
    path = plan.folder / ROWS
    published = read_json(path)["model"] if path.is_file() else 0
    if published != last or not finished(plan.folder):
        for found in ("eval", INSPECT):
            shutil.rmtree(plan.folder / found, ignore_errors=True)
        _publish(plan.train(last) / "model", plan.folder / "model")


def _write_table(plan: IterationPlan, last: int, base: Path | None) -> None:
    from stepdpo.report.iterations import iterations_table  # scipy: the waiting process does without until then

    rows, text = iterations_table([plan.train(number) for number in range(1, last + 1)], base)
    write_json(plan.folder / ROWS, {"model": last, "rows": rows})
    write_text(plan.folder / "rounds.md", text)
    print(f"\n{text}", flush=True)


def _publish(source: Path, target: Path) -> None:
    """A model under a second name, put in place whole; its files are shared where the file system can."""
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)  # a folder that holds something cannot be renamed over
    scratch.rename(target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
