"""`stepdpo pairs`: problems in, preferences made from a model's own solutions out."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.dataset import write_preferences
from stepdpo.errors import UserError
from stepdpo.files import write_json
from stepdpo.grade.pool import graders
from stepdpo.grade.strict import Strict
from stepdpo.package import conf
from stepdpo.pairs.tools import Tools
from stepdpo.records import Problem, Sampling
from stepdpo.task import TinymathTask
from stepdpo.template import resolve

PREFERENCES, SUMMARY = "preferences.jsonl", "summary.json"


@dataclass(frozen=True)
class Construction:
    """All settings of one construction of pairs; the parts are built from their own config groups."""

    model: Any
    task: Any
    template: Any
    sampler: Any
    pairs: Any
    n: int = 8
    """Solutions sampled a problem."""
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 512
    """Longest solution; longer ones are not used."""
    limit: int | None = None
    """The first so many problems only."""
    split: str | None = None
    """Which of the task's problems; null takes tinymath's `preference`, other tasks' `train`, never the test ones."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError("n, max_tokens and limit must be at least 1")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("solutions must differ to be paired: temperature above 0, top_p in (0, 1]")


def construct(spec: Construction, folder: Path) -> dict[str, Any]:
    """Make preferences and write `preferences.jsonl` and `summary.json`; returns the counts of every stage.

    Raises UserError for bad input, a task that cannot tell right steps from wrong, or when no pair comes of it.
    """
    _refuse_without(spec)
    template, warning = resolve(spec.template, spec.model.source)
    if warning:
        print(f"warning: {warning}", flush=True)
    problems = _problems(spec)
    print(f"{spec.task.name}: {len(problems)} problems, {spec.n} solutions each, template {template.name}", flush=True)
    began = time.monotonic()
    with spec.sampler.open(spec.model) as sampler, graders() as grade_many:
        tools = Tools(
            sampler=sampler,
            template=template,
            tokenizer=spec.model.tokenizer(),
            sampling=Sampling(spec.n, spec.temperature, spec.top_p, spec.max_tokens, (), spec.seed),
            grade=lambda items: grade_many(items, Strict()),
            checker=spec.task.checker,
        )
        preferences = list(spec.pairs(problems, tools))
        facts = getattr(sampler, "facts", {})
    counts = dict(tools.yields)
    for name, number in counts.items():
        print(f"  {number:>9,}  {name}", flush=True)
    if not preferences:
        raise UserError("no pair came of it: take more problems (limit), more solutions (n), or another temperature")
    folder.mkdir(parents=True, exist_ok=True)
    write_preferences(preferences, folder / PREFERENCES)
    stamp = {"template": template.name, "task": spec.task.name, "stepdpo": stepdpo.__version__, **facts}
    write_json(folder / SUMMARY, {"counts": counts, **stamp, "seconds": round(time.monotonic() - began, 2)})
    print(f"{len(preferences)} preferences in {folder / PREFERENCES}", flush=True)
    return counts


def _problems(spec: Construction) -> list[Problem]:
    miniature = isinstance(spec.task, TinymathTask)
    split = spec.split or ("preference" if miniature else "train")
    changes: dict[str, Any] = {"split": split, "limit": spec.limit or spec.task.limit}
    if miniature:
        changes["count"] = spec.limit or spec.task.count
    problems: list[Problem] = replace(spec.task, **changes).problems()
    return problems


def _refuse_without(spec: Construction) -> None:
    """UserError when the way of making pairs needs a checker and the task has none."""
    if "checker" not in spec.pairs.needs or spec.task.checker is not None:
        return
    files = sorted((conf() / "task").glob("*.yaml"))
    having = [file.stem for file in files if re.search(r"^checker:\s*$", file.read_text(), re.MULTILINE)]
    known = f"tasks that have one: {', '.join(having)}"
    raise UserError(f"task={spec.task.name} has no exact step checker, which these pairs need; {known}")
