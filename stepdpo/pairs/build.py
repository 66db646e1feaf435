"""`stepdpo pairs`: problems in, preferences made from a model's own solutions out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import Outage, UserError
from stepdpo.core.package_data import conf
from stepdpo.core.types import Problem, Sampling
from stepdpo.data.problem_stream import ProblemStream
from stepdpo.data.templates import resolve
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.result_log import PREFERENCES, QUARANTINE, ResultLog
from stepdpo.pairs.engine.scheduler import groups
from stepdpo.pairs.engine.tally import Tally
from stepdpo.pairs.engine.worker import WorkerContext
from stepdpo.pairs.executors.local import LocalExecutor
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.signals import interruptible
from stepdpo.tinymath.task import TinymathTask

SUMMARY, UNFINISHED = "summary.json", "summary.partial.json"
"""The second where a judge did not answer for some problems, which a resumed run tries again."""
KEPT = "what is finished is kept, resume=true goes on"


@dataclass(frozen=True)
class Construction:
    """All settings of one construction of pairs; the parts are built from their own config groups."""

    model: Any
    task: Any
    template: Any
    sampler: Any
    pairs: Any
    judge: Any
    crew: Any = field(default_factory=LocalExecutor)
    """Who works on the problems: this process, or many."""
    n: int = 8
    """Solutions sampled a problem."""
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 512
    """Longest solution; longer ones are not used."""
    limit: int | None = None
    """The first so many problems only, those that are skipped aside."""
    skip: int = 0
    """Leave out so many problems at the beginning: those that earlier pairs were made from."""
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
        if self.skip < 0:
            raise ValueError("skip must be at least 0")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("solutions must differ to be paired: temperature above 0, top_p in (0, 1]")


def construct(spec: Construction, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Make preferences, problem by problem, into `preferences.jsonl`; returns the counts of every stage.

    Results are appended as they come (engine/result_log.py); with `resume`, finished problems are left as they are.
    Raises UserError for bad input, a task that cannot tell right steps from wrong, or when no pair comes of it.
    """
    _refuse_without(spec)
    context, about = (None, {}) if _cuts_trees(spec) else _tools(spec)
    problems = _problems(spec)
    worker_context = WorkerContext(spec.pairs, context, spec.model, spec.sampler, spec.sampling, folder)
    result_log = ResultLog(folder)
    try:
        _announce(spec, about, problems, len(result_log.done))
        with interruptible(KEPT):
            facts = _work(spec, worker_context, problems, result_log)
        counts = _counted(result_log)
        if not result_log.counts["pairs"]:
            raise _no_pair(spec, result_log)
        result_log.finish()
    except UserError:
        if not resume:
            result_log.discard()
        raise
    finally:
        result_log.close()
    stamp = {**about, "task": spec.task.name, "stepdpo": stepdpo.__version__, **facts}
    summary = folder / (UNFINISHED if result_log.failed else SUMMARY)
    write_json(
        summary, {"counts": counts, "outcomes": dict(+result_log.outcomes), "seconds": result_log.seconds, **stamp}
    )
    if result_log.failed:
        print(
            f"{len(result_log.failed)} problems are in {folder / QUARANTINE}: resume=true tries them again", flush=True
        )
    else:
        (folder / UNFINISHED).unlink(missing_ok=True)
    print(f"{counts['pairs']} preferences in {folder / PREFERENCES}", flush=True)
    return counts


def _cuts_trees(spec: Construction) -> bool:
    """Whether pairs are cut from trees that are there already, and no model is asked."""
    return "trees" in spec.pairs.needs


def _tools(spec: Construction) -> tuple[Context, dict[str, str]]:
    """What a source that asks a model is handed, and the template's name."""
    template, warning = resolve(spec.template, spec.model.source)
    if warning:
        print(f"warning: {warning}", flush=True)
    context = Context(template, spec.model.tokenizer(), spec.sampling, spec.task.checker, spec.judge)
    return context, {"template": template.name}


def _no_pair(spec: Construction, result_log: ResultLog) -> Exception:
    """What there is to do about it."""
    if result_log.failed and not _cuts_trees(spec):
        many = f"the judge's word is missing for {len(result_log.failed)} problems"
        return Outage(f"no pair came of it, and {many} ({result_log.folder / QUARANTINE}): resume=true asks again")
    more = "more problems (limit), more solutions (n), or another temperature"
    return UserError(f"no pair came of it: take {'looser rules (pairs.cut)' if _cuts_trees(spec) else more}")


def _announce(spec: Construction, about: dict[str, str], problems: Iterable[Problem], done: int) -> None:
    total = _total(problems)
    finished = f", {done} of them finished before" if done else ""
    if _cuts_trees(spec):
        print(f"{spec.pairs.path}: trees{finished}", flush=True)
    else:
        many = "problems" if total is None else f"{total} problems"
        print(f"{spec.task.name}: {many}{finished}, {spec.n} solutions each, template {about['template']}", flush=True)


def _total(problems: Any) -> int | None:
    return len(problems) if hasattr(problems, "__len__") else None


def _work(
    spec: Construction, worker_context: WorkerContext, problems: Iterable[Problem], result_log: ResultLog
) -> dict[str, Any]:
    """Finish the problems that are left, reading them as they are needed; returns what was worked with."""
    left = (problem for problem in problems if problem.id not in result_log.done)
    first = next(left, None)
    if first is None:
        return {}
    progress = Progress("problem", _total(problems), len(result_log.done))
    tally = Tally(result_log.counts["pairs"])
    with spec.crew.open(worker_context) as crew, progress:
        try:
            for finished in crew.finish(groups(chain([first], left), spec.live)):
                result_log.add(finished)
                tally.add(finished)
                progress.advance(1, tally.figures(progress.seconds))
        except Outage as error:
            raise Outage(f"{error}; {KEPT}") from None
        facts: dict[str, Any] = crew.facts
        return facts


def _counted(result_log: ResultLog) -> dict[str, int]:
    """Print and return what came of every stage."""
    counts = {"problems": sum(result_log.outcomes.values()), **result_log.counts}
    for name, number in counts.items():
        print(f"  {number:>9,}  {name}", flush=True)
    for name, number in sorted(result_log.outcomes.items(), key=lambda item: -item[1]):
        if name != "pairs" and number:
            print(f"  {number:>9,}  problems without pairs: {name}", flush=True)
    return counts


def _problems(spec: Construction) -> Iterable[Problem]:
    """What is worked on, read or made while it is used."""
    if _cuts_trees(spec):
        trees: Iterator[Problem] = spec.pairs.problems()
        return islice(trees, spec.skip, spec.limit and spec.skip + spec.limit)
    miniature = isinstance(spec.task, TinymathTask)
    split = spec.split or ("preference" if miniature else "train")
    upto = spec.limit and spec.skip + spec.limit
    changes: dict[str, Any] = {"split": split, "limit": upto or spec.task.limit}
    if miniature:
        changes["count"] = upto or spec.task.count
    task = replace(spec.task, **changes)
    everything: Any = task.stream() if hasattr(task, "stream") else task.problems()
    total = _total(everything)
    if total is None:
        return islice(everything, spec.skip, upto)
    if spec.skip >= total:
        known = f"task={spec.task.name} has no more than {total} problems in {split}"
        raise UserError(f"skip={spec.skip}: {known}")
    return ProblemStream(total - spec.skip, lambda: islice(everything, spec.skip, None))


def _refuse_without(spec: Construction) -> None:
    """UserError when the way of making pairs, or its judge, needs a checker and the task has none."""
    needs = spec.pairs.needs | (spec.judge.needs if "judge" in spec.pairs.needs else frozenset())
    if "checker" not in needs or spec.task.checker is not None:
        return
    files = sorted((conf() / "task").glob("*.yaml"))
    having = [file.stem for file in files if re.search(r"^checker:\s*$", file.read_text(), re.MULTILINE)]
    known = f"tasks that have one: {', '.join(having)}"
    raise UserError(f"task={spec.task.name} has no exact step checker, which these pairs need; {known}")
