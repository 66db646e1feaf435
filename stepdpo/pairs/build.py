"""`stepdpo pairs`: problems in, preferences made from a model's own solutions out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import Outage, UserError
from stepdpo.core.types import Problem
from stepdpo.crew.groups import groups
from stepdpo.data.problem_stream import ProblemStream
from stepdpo.data.template_card import resolve
from stepdpo.pairs.config import PairsConfig, refuse_without_checker
from stepdpo.pairs.engine.context import Context, needs_file
from stepdpo.pairs.engine.requests import BASELINES
from stepdpo.pairs.engine.result_log import PREFERENCES, ResultLog, open_result_log
from stepdpo.pairs.engine.tally import Tally
from stepdpo.pairs.engine.worker import WorkerContext
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.run_folder import QUARANTINE, SUMMARY, UNFINISHED
from stepdpo.runtime.secrets import redact
from stepdpo.runtime.signals import KEPT, interruptible
from stepdpo.tinymath.task import TinymathTask


def build_pairs(spec: PairsConfig, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Make preferences, problem by problem, into `preferences.jsonl`; returns the counts of every stage.

    Results are appended as they come (engine/result_log.py); with `resume`, finished problems are left as they are. At
    the end the files have the order of the problems, whoever worked on them and however often it was stopped.
    Raises UserError for bad input, a task that cannot tell right steps from wrong, or when no pair comes of it.
    """
    refuse_without_checker(spec)
    context, template = (None, "") if needs_file(spec.pairs) else _context(spec, folder)
    problems = _problems(spec)
    worker_context = WorkerContext(spec.pairs, context, spec.model, spec.sampler, folder)
    with open_result_log(folder, resume) as result_log:
        _announce(spec, template, problems, len(result_log.done))
        with interruptible(KEPT):
            provenance = _run(spec, worker_context, problems, result_log)
        result_log.put_in_order()
        counts = _print_counts(result_log)
        files = _print_files(result_log)
        if not result_log.counts["pairs"]:
            raise _no_pair(spec, result_log)
        result_log.finish()
    results = {"counts": counts, "outcomes": dict(+result_log.outcomes), "seconds": result_log.seconds}
    named = {"template": template} if template else {}
    stamp = {**named, "task": spec.task.name, "stepdpo": stepdpo.__version__, **provenance}
    _write_summary(result_log, {**results, **({"files": files} if files else {}), **stamp})
    print(f"{counts['pairs']} preferences in {folder / PREFERENCES}", flush=True)
    return counts


def _context(spec: PairsConfig, folder: Path) -> tuple[Context, str]:
    """The context of a method that requests something of a model, and the name of its template."""
    tokenizer = spec.model.tokenizer()
    template, warning = resolve(spec.template, spec.model.source, tokenizer, started_on(folder))
    if warning:
        print(f"warning: {warning}", flush=True)
    context = Context(template, tokenizer, spec.sampling, spec.task.checker, spec.judge)
    return context, template.name


def _problems(spec: PairsConfig) -> Iterable[Problem]:
    """What is worked on, read or made while it is used."""
    end = spec.limit and spec.skip + spec.limit
    if needs_file(spec.pairs):
        return islice(spec.pairs.problems(), spec.skip, end)
    given: Any = spec.task
    miniature = isinstance(given, TinymathTask)
    split = spec.split or ("preference" if miniature else "train")
    changes: dict[str, Any] = {"split": split, "limit": end or given.limit}
    if miniature:
        changes["count"] = end or given.count  # made by rule: there are as many problems as one wants
    task = replace(given, **changes)
    everything: Any = task.stream() if hasattr(task, "stream") else task.problems()
    total = _total(everything)
    if total is None:
        return islice(everything, spec.skip, end)
    if spec.skip >= total:
        known = f"task={spec.task.name} has no more than {total} problems in {split}"
        raise UserError(f"skip={spec.skip}: {known}")
    return ProblemStream(total - spec.skip, lambda: islice(everything, spec.skip, None))


def _total(problems: Any) -> int | None:
    return len(problems) if hasattr(problems, "__len__") else None


def _announce(spec: PairsConfig, template: str, problems: Iterable[Problem], done: int) -> None:
    total = _total(problems)
    finished = f", {done} of them finished before" if done else ""
    if needs_file(spec.pairs):
        print(f"{spec.pairs.path}: {'trees' if 'trees' in spec.pairs.needs else 'pairs'}{finished}", flush=True)
    else:
        many = "problems" if total is None else f"{total} problems"
        print(f"{spec.task.name}: {many}{finished}, {spec.n} solutions each, template {template}", flush=True)


def _run(
    spec: PairsConfig, worker_context: WorkerContext, problems: Iterable[Problem], result_log: ResultLog
) -> dict[str, Any]:
    """Finish the problems that are left, reading them as they are needed; returns what it was done with."""
    left = result_log.unfinished(problems)
    # The first is taken before the executor opens: where nothing is left to do, no model is loaded for it.
    first = next(left, None)
    if first is None:
        return {}
    total, done = _total(problems), len(result_log.done)
    progress = Progress("problem", total, done)
    tally = Tally(result_log.counts["pairs"])
    with spec.crew.open(worker_context) as crew, progress:
        try:
            some = groups(chain([first], left), spec.live, crew.count, total and total - done)
            for finished in crew.finish(some):
                result_log.add(finished)
                tally.add(finished)
                progress.advance(1, tally.figures(progress.seconds))
        except Outage as error:
            raise Outage(f"{error}; {KEPT}") from None
        provenance: dict[str, Any] = crew.provenance
        return provenance


def _print_counts(result_log: ResultLog) -> dict[str, int]:
    """Print and return what came of every stage."""
    counts = {"problems": sum(result_log.outcomes.values()), **result_log.counts}
    for name, number in counts.items():
        print(f"  {number:>9,}  {name}", flush=True)
    for name, number in sorted(result_log.outcomes.items(), key=lambda item: -item[1]):
        if name != "pairs" and number:
            print(f"  {number:>9,}  problems without pairs: {name}", flush=True)
    return counts


def _print_files(result_log: ResultLog) -> dict[str, dict[str, int]]:
    """Print and return the rows of every file, and the tokens generated for it; nothing where there is but one."""
    if not result_log.baselines:
        return {}
    costs = {"preferences": ("samples", "search"), **BASELINES}
    rows = {"preferences": result_log.counts["pairs"], **result_log.baselines}
    files = {
        name: {"rows": rows[name], "generated_tokens": sum(result_log.counts[f"tokens of {part}"] for part in parts)}
        for name, parts in costs.items()
        if name in rows
    }
    for name, figures in files.items():
        print(f"  {figures['rows']:>9,}  rows in {name}.jsonl, of {figures['generated_tokens']:,} generated tokens")
    return files


def _no_pair(spec: PairsConfig, result_log: ResultLog) -> Exception:
    """What there is to do about it."""
    if result_log.failed and not needs_file(spec.pairs):
        many = f"the judge's word is missing for {len(result_log.failed)} problems"
        return Outage(f"no pair came of it, and {many} ({result_log.folder / QUARANTINE}): resume=true asks again")
    advice = "more problems (limit), more solutions (n), or another temperature"
    if needs_file(spec.pairs):
        advice = "looser rules (pairs.cut)" if "trees" in spec.pairs.needs else "other pairs (pairs.path)"
    return UserError(f"no pair came of it: take {advice}")


def _write_summary(result_log: ResultLog, summary: dict[str, Any]) -> None:
    """Under its final name, which says that nothing is left to do, unless problems are to be tried again."""
    folder, failed = result_log.folder, len(result_log.failed)
    write_json(folder / (UNFINISHED if failed else SUMMARY), redact(summary))
    if failed:
        print(f"{failed} problems are in {folder / QUARANTINE}: resume=true tries them again", flush=True)
    else:
        (folder / UNFINISHED).unlink(missing_ok=True)
