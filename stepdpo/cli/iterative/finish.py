"""After the last round: its model where a plain run has it, the report, the table of rounds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stepdpo.cli.iterative.plan import IterationPlan
from stepdpo.cli.jobs import finished
from stepdpo.cli.post_training import evaluate_base, evaluation_config, evaluation_folder, name_base, report_on
from stepdpo.runtime import run_folder as runs

ROWS = "rounds.json"


def conclude(plan: IterationPlan, last: int) -> None:
    """The last model, and its evaluations, where a plain run has them; the report; the table of rounds."""
    from stepdpo.report.iterations import rounds_table

    folder = plan.folder
    known = runs.read_json(folder / ROWS)["model"] if (folder / ROWS).is_file() else 0
    if known != last or not finished(folder):
        shutil.rmtree(folder / "eval", ignore_errors=True)  # of another model
        _publish(plan.train(last) / "model", folder / "model")
    base: Path | None = None
    for task in plan.tasks:
        config = evaluation_config(task, plan.task_words, plan.config)
        base = evaluate_base(config, plan.choices, plan.root, task)
        place = evaluation_folder(folder, config, plan.choices)
        if evaluation_folder(plan.train(last), config, plan.choices).is_dir():
            shutil.copytree(evaluation_folder(plan.train(last), config, plan.choices), place, dirs_exist_ok=True)
            name_base(place, base, folder)
    if plan.tasks:
        report_on([folder], folder)
    rows, text = rounds_table([plan.train(number) for number in range(1, last + 1)], base)
    runs.write_json(folder / ROWS, {"model": last, "rows": rows})
    runs.write_text(folder / "rounds.md", text)
    print(f"\n{text}", flush=True)


def _publish(source: Path, target: Path) -> None:
    """A model under a second name, put in place whole; its files are shared where the file system can."""
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
