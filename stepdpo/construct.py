"""`stepdpo pairs`: problems in, preferences made from a model's own solutions out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.errors import Outage, UserError
from stepdpo.files import write_json
from stepdpo.grade.pool import graders
from stepdpo.grade.strict import Strict
from stepdpo.package import conf
from stepdpo.records import Problem, Sampling
from stepdpo.task import TinymathTask
from stepdpo.template import resolve
from stepdpo.workshop.drive import Desk, drive, groups
from stepdpo.workshop.journal import PREFERENCES, QUARANTINE, Journal
from stepdpo.workshop.progress import Progress
from stepdpo.workshop.tools import Tools

SUMMARY, UNFINISHED = "summary.json", "summary.partial.json"
"""The second where a judge did not answer for some problems, which a resumed run tries again."""


@dataclass(frozen=True)
class Construction:
    """All settings of one construction of pairs; the parts are built from their own config groups."""

    model: Any
    task: Any
    template: Any
    sampler: Any
    pairs: Any
    judge: Any
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
    live: int = 128
    """Problems worked on together; what they ask for goes to the sampler in one call."""
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """How solutions are sampled."""
        return Sampling(self.n, self.temperature, self.top_p, self.max_tokens, (), self.seed)

    def __post_init__(self) -> None:
        if self.live < 1:
            raise ValueError("live must be at least 1")
        if self.n < 1 or self.max_tokens < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError("n, max_tokens and limit must be at least 1")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("solutions must differ to be paired: temperature above 0, top_p in (0, 1]")


def construct(spec: Construction, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Make preferences, problem by problem, into `preferences.jsonl`; returns the counts of every stage.

    Results are appended as they come (workshop/journal.py); with `resume`, finished problems are left as they are.
    Raises UserError for bad input, a task that cannot tell right steps from wrong, or when no pair comes of it.
    """
    _refuse_without(spec)
    template, warning = resolve(spec.template, spec.model.source)
    if warning:
        print(f"warning: {warning}", flush=True)
    problems = _problems(spec)
    tools = Tools(template, spec.model.tokenizer(), spec.sampling, spec.task.checker, spec.judge)
    journal = Journal(folder)
    try:
        left = [problem for problem in problems if problem.id not in journal.done]
        _announce(spec, template.name, len(problems), len(left))
        facts = _work(spec, tools, left, len(problems), journal)
        counts = _counted(journal)
        if not journal.counts["pairs"]:
            raise _no_pair(journal)
        journal.finish()
    except UserError:
        if not resume:
            journal.discard()
        raise
    finally:
        journal.close()
    stamp = {"template": template.name, "task": spec.task.name, "stepdpo": stepdpo.__version__, **facts}
    summary = folder / (UNFINISHED if journal.failed else SUMMARY)
    write_json(summary, {"counts": counts, "outcomes": dict(+journal.outcomes), "seconds": journal.seconds, **stamp})
    if journal.failed:
        print(f"{len(journal.failed)} problems without the judge's word: resume=true asks again", flush=True)
    else:
        (folder / UNFINISHED).unlink(missing_ok=True)
    print(f"{counts['pairs']} preferences in {folder / PREFERENCES}", flush=True)
    return counts


def _no_pair(journal: Journal) -> Exception:
    """What there is to do about it."""
    if journal.failed:
        many = f"the judge's word is missing for {len(journal.failed)} problems"
        return Outage(f"no pair came of it, and {many} ({journal.folder / QUARANTINE}): resume=true asks again")
    return UserError("no pair came of it: take more problems (limit), more solutions (n), or another temperature")


def _announce(spec: Construction, template: str, total: int, left: int) -> None:
    finished = f", {total - left} of them finished before" if left < total else ""
    print(f"{spec.task.name}: {total} problems{finished}, {spec.n} solutions each, template {template}", flush=True)


def _work(spec: Construction, tools: Tools, left: list[Problem], total: int, journal: Journal) -> dict[str, Any]:
    """Finish the problems that are left; returns what sampler and judge say of themselves."""
    if not left:
        return {}
    quiet = replace(spec.sampler, progress=False) if hasattr(spec.sampler, "progress") else spec.sampler
    with (
        _consulting(spec, journal.folder) as consult,
        quiet.open(spec.model) as sampler,
        graders() as grade_many,
        Progress(total, total - len(left)) as progress,
    ):
        desk = Desk(sampler, spec.sampling, lambda items: grade_many(items, Strict()), consult)
        try:
            for group in groups(left, spec.live):
                for finished in drive(group, spec.pairs, tools, desk):
                    journal.add(finished)
                    progress.advance(finished)
        except Outage as error:
            raise Outage(f"{error}; what is finished is kept: resume=true goes on") from None
        return {**getattr(sampler, "facts", {}), **getattr(consult, "facts", {})}


def _consulting(
    spec: Construction, folder: Path
) -> AbstractContextManager[Callable[[Sequence[str]], list[Any]] | None]:
    """The judge's model, where the pairs need a judge and it has a model of its own."""
    if "judge" in spec.pairs.needs and hasattr(spec.judge, "open"):
        opened: AbstractContextManager[Callable[[Sequence[str]], list[Any]]] = spec.judge.open(folder)
        return opened
    return nullcontext()


def _counted(journal: Journal) -> dict[str, int]:
    """Print and return what came of every stage."""
    counts = {"problems": sum(journal.outcomes.values()), **journal.counts}
    for name, number in counts.items():
        print(f"  {number:>9,}  {name}", flush=True)
    for name, number in sorted(journal.outcomes.items(), key=lambda item: -item[1]):
        if name != "pairs" and number:
            print(f"  {number:>9,}  problems without pairs: {name}", flush=True)
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
    """UserError when the way of making pairs, or its judge, needs a checker and the task has none."""
    needs = spec.pairs.needs | (spec.judge.needs if "judge" in spec.pairs.needs else frozenset())
    if "checker" not in needs or spec.task.checker is not None:
        return
    files = sorted((conf() / "task").glob("*.yaml"))
    having = [file.stem for file in files if re.search(r"^checker:\s*$", file.read_text(), re.MULTILINE)]
    known = f"tasks that have one: {', '.join(having)}"
    raise UserError(f"task={spec.task.name} has no exact step checker, which these pairs need; {known}")
