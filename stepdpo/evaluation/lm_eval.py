"""Tasks of lm-evaluation-harness, by the harness itself: a process of the environment that it is installed in.

It cannot share ours: Hydra 1.3 and the harness's maths tasks want different versions of antlr4.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Problem
from stepdpo.evaluation.lm_eval_results import KIND, accuracy, read_results
from stepdpo.models.load import ModelSpec
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.parent import end_with
from stepdpo.runtime.run_folder import SUMMARY
from stepdpo.runtime.secrets import redact

OUTPUT = "lm_eval"
"""The folder beside it, in which the harness writes."""
INSTALL = "python -m venv lmenv && lmenv/bin/pip install 'lm_eval[hf]', then task.python=lmenv/bin/python"
NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV")
"""What would bring our environment into the harness's."""


@dataclass(frozen=True)
class LmEval:
    """What the harness is told. It asks in its own words: template, decoder and graders of ours have no part in it."""

    tasks: tuple[str, ...]
    """Its tasks or groups of tasks."""
    python: str
    """The interpreter of an environment with lm_eval in it."""
    name: str = "lm_eval"
    limit: int | None = None
    """The first so many problems of each task."""
    shots: int | None = None
    """Worked examples before each question; None for the task's own number."""
    batch_size: str = "8"
    """A number, or auto."""
    chat: bool = False
    """Ask through the model's chat template."""
    include_path: str | None = None
    """A folder of further tasks, as YAML files."""
    model_args: str = ""
    """Further arguments of the harness's `hf` model, as `dtype=bfloat16,parallelize=True`."""
    device: str | None = None
    """As `cuda:0` or `cpu`; None leaves it to the harness."""
    checker: Checker | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        at_least(1, limit=self.limit)
        at_least(0, shots=self.shots)
        if not self.tasks:
            raise ValueError("tasks: name at least one task of the harness, task=lm_eval:NAME")
        if self.batch_size != "auto" and not self.batch_size.isdecimal():
            raise ValueError(f"batch_size: expected a number or auto, got {self.batch_size}")

    def problems(self) -> list[Problem]:
        """UserError: they are the harness's."""
        raise UserError(f"task={self.name}: its problems are the harness's own; it can only be evaluated on")


def command(task: LmEval, model: str, out: Path) -> list[str]:
    """The words that start the harness."""
    arguments = ",".join(filter(None, (f"pretrained={model}", task.model_args)))
    given = {
        "--model": "hf", "--model_args": arguments, "--tasks": ",".join(task.tasks), "--batch_size": task.batch_size,
        "--output_path": str(out), "--limit": task.limit, "--num_fewshot": task.shots,
        "--include_path": task.include_path, "--device": task.device,
    }  # fmt: skip
    words = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    return [task.python, "-m", "lm_eval", *words, *(["--apply_chat_template"] if task.chat else [])]


def measure(task: LmEval, model: ModelSpec, folder: Path) -> dict[str, Any]:
    """Run the harness on a model, read what it found, and write `summary.json`; returns the summary.

    Raises UserError where the harness is not there, ends badly (its own words are on the terminal), or leaves no
    results.
    """
    began = time.monotonic()
    version = _version(task.python)
    place = model.folder()
    source = str(place.absolute()) if place is not None else str(getattr(model, "path", model.source))
    if "," in source:
        raise UserError(f"{source}: the harness takes a comma for the end of the model's name; give it another folder")
    out = folder / OUTPUT
    folder.mkdir(parents=True, exist_ok=True)
    words = command(task, source, out)
    print(f"{task.name}: {', '.join(task.tasks)} by lm_eval {version}", flush=True)
    code = _run(words)
    if code:
        raise UserError(f"lm_eval ended with exit code {code}, for the reason it gives above: {' '.join(words[1:])}")
    files = sorted(out.rglob("results*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"{out}: lm_eval left no results there")
    try:
        rows = read_results(json.loads(files[-1].read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{files[-1]}: not the results of lm_eval ({error!r})") from error
    if not rows:
        raise UserError(f"{files[-1]}: there are no figures in it")
    main = accuracy(rows)
    summary = {
        "kind": KIND, "task": task.name, "model": getattr(model, "path", model.source),
        **({} if main is None else {"accuracy": main}), "results": rows, "lm_eval": version,
        "file": str(files[-1].relative_to(folder)), "stepdpo": stepdpo.__version__,
        "seconds": round(time.monotonic() - began, 2),
    }  # fmt: skip
    write_json(folder / SUMMARY, redact(summary))
    for row in rows:
        spread = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
        print(f"{row['task']}: {row['metric']} ({row['filter']}) {row['value']:.4f}{spread}", flush=True)
    return summary


def _version(python: str) -> str:
    """Of the harness in that environment. UserError where there is none."""
    code = "import importlib.metadata as m; print(m.version('lm_eval'))"
    try:
        said = subprocess.run([python, "-c", code], capture_output=True, text=True, env=_environment(), check=False)
    except OSError as error:
        raise UserError(f"task.python: {python!r} cannot be started ({error.strerror}); {INSTALL}") from error
    if said.returncode:
        raise UserError(f"task.python: {python!r} has no lm_eval; {INSTALL}")
    return said.stdout.strip()


def _run(words: Sequence[str]) -> int:
    """The exit code; what it says goes where ours goes."""
    sys.stdout.flush()
    with subprocess.Popen(words, env=_environment(), preexec_fn=end_with(os.getpid())) as process:
        try:
            return process.wait()
        except BaseException:  # Ctrl-C, or the end of this command: the harness has nothing to save
            process.terminate()
            raise


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in NOT_OURS}
