"""Run folders -> evaluations -> rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stepdpo.core.config import TARGET
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.types import Attempt
from stepdpo.evaluation.attempts import attempt_of
from stepdpo.evaluation.statistics import GRADERS, Paired, paired, summarise, verdicts
from stepdpo.report.measured import is_measured, scorer_name
from stepdpo.runtime.atomic_io import read_json, read_jsonl
from stepdpo.runtime.run_folder import ATTEMPTS, SUMMARY, UNFINISHED

log = logging.getLogger(__name__)
GRADER = "strict"
"""The one to believe, and to compare by; the official one is for published numbers."""
SETTINGS = ("algo", "level", "template", "dataset")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """One `eval/<task>/` folder."""

    folder: Path
    task: str
    decode: str
    summary: Mapping[str, Any]
    attempts: tuple[Attempt, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What two runs must have in common to be compared."""
        return self.task, self.decode


def read_evaluations(run: Path) -> list[EvaluationResult]:
    """Every evaluation of a run that graded answers (`measured` has the others).

    UserError, where there is none of any kind, says what there is instead.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run; {nearest(run.name, _evaluated(run.parent))}")
    there = sorted((run / "eval").rglob(SUMMARY))
    found = [_evaluation(path.parent) for path in there if not is_measured(read_json(path))]
    if not there and (part := next((run / "eval").rglob(UNFINISHED), None)):
        raise UserError(f"{part.parent}: some problems have no answer yet; resume=true tries them again")
    if not there:
        raise UserError(f"{run}: never evaluated (no eval/*/{SUMMARY}); {nearest(run.name, _evaluated(run.parent))}")
    return found


def find_base(run: Path, evaluations: Sequence[EvaluationResult]) -> Path | None:
    """The base that a run names in a summary's `base`, else the run called `base` beside it."""
    for named in (evaluation.summary.get("base") for evaluation in evaluations):
        if named:
            places = [Path(named), run.parent / str(named)]
            found = [place for place in places if (place / "eval").is_dir()]
            if not found:
                known = nearest(str(named), _evaluated(run.parent))
                raise UserError(f"{run}: its base {named!r} has no eval/; {known}")
            return found[0]
    return run.parent / "base" if (run.parent / "base" / "eval").is_dir() else None


def short_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The last part of every path, or as many as tell it from the others."""
    tails = {
        run: ["/".join(run.absolute().parts[-n:]) for n in range(1, len(run.absolute().parts) + 1)] for run in runs
    }
    taken = Counter(tail for some in tails.values() for tail in some)
    return {run: next((tail for tail in some if taken[tail] == 1), str(run)) for run, some in tails.items()}


def run_rows(
    name: str, run: Path, evaluations: Sequence[EvaluationResult], base: Sequence[EvaluationResult]
) -> list[dict[str, Any]]:
    """One row a task, decoder and grader; without a matching base evaluation its four columns are None."""
    bases = {evaluation.key: evaluation for evaluation in base}
    named = settings(run)
    return [
        _row(name, named, evaluation, grader, bases.get(evaluation.key))
        for evaluation in evaluations
        for grader in GRADERS
    ]


def compare_paired(base: EvaluationResult, other: EvaluationResult, grader: str) -> Paired:
    """Compare two evaluations problem by problem; UserError when they are not about the same problems."""
    questions = {attempt.problem_id: attempt.question for attempt in base.attempts}
    for attempt in other.attempts:
        # Ids are often mere numbers, and then another split or an older file has the same ones.
        if questions.get(attempt.problem_id, attempt.question) != attempt.question:
            raise UserError(f"{other.folder} and {base.folder} ask different questions under id {attempt.problem_id!r}")
    try:
        return paired(verdicts(base.attempts, grader), verdicts(other.attempts, grader))
    except ValueError as error:
        raise UserError(f"{other.folder} and {base.folder}: {error}") from error


def settings(run: Path) -> dict[str, str]:
    """What the run was made with, by the names its config and manifest give; empty where they give none."""
    path = run / "config.yaml"
    try:
        # Unresolved: what a configuration refers to (environment, other nodes) need not be there any more.
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.exists() else {}
    except (OSError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    config = config if isinstance(config, dict) else {}
    manifest = run / "manifest.json"
    started = read_json(manifest) if manifest.exists() else {}
    choices = started.get("choices", {}) if isinstance(started, dict) else None
    if not isinstance(choices, dict):
        raise UserError(f"{manifest}: not a run's manifest")
    level = config.get("level")
    prefix = level.get("prefix") if isinstance(level, dict) else None
    return {
        "model": _name(config.get("model"), None),
        "prefix": str(prefix or config.get("prefix") or ""),
        **{group: _name(config.get(group), choices.get(group)) for group in SETTINGS},
    }


def _name(node: Any, choice: str | None) -> str:
    """The config group's option, else what the node calls itself."""
    if choice or not isinstance(node, dict):
        return str(choice or node or "")
    for key in ("name", "path"):
        if node.get(key):
            return str(node[key])
    return str(node.get(TARGET, "")).rpartition(".")[2].lower()


def _row(
    run: str, named: Mapping[str, str], evaluation: EvaluationResult, grader: str, base: EvaluationResult | None
) -> dict[str, Any]:
    numbers = summarise(evaluation.attempts)
    block = numbers["graders"][grader]
    mistakes, seeds = evaluation.summary.get("mistakes"), evaluation.summary.get("seeds")
    by = evaluation.summary.get("by")
    pair = compare_paired(base, evaluation, grader) if base else None
    if pair and pair.n < numbers["n"]:
        answered = f"{pair.n} of {numbers['n']} problems"
        log.warning("%s: delta is over the %s that the base answered too", evaluation.folder, answered)
    return {
        "run": run,
        "model": named["model"] or str(evaluation.summary.get("model", "")),
        **{key: named[key] for key in ("algo", "level", "prefix")},
        "template": str(evaluation.summary.get("template") or named["template"]),
        "dataset": named["dataset"],
        "task": evaluation.task,
        "decode": evaluation.decode,
        "grader": grader,
        "n": numbers["n"],
        **({"seeds": len(seeds)} if seeds else {}),
        **{key: block[key] for key in ("correct", "accuracy", "stderr", "ci_low", "ci_high")},
        "base_accuracy": pair.base_correct / pair.n if pair else None,
        "delta": pair.delta if pair else None,
        "p_value": pair.p_value if pair else None,
        "unparsed": block["unparsed"],
        "truncated": numbers["truncated"],
        "mean_tokens": numbers["mean_tokens"],
        # Of the responses, not of a grader: once is enough.
        **({"mistakes": mistakes} if grader == GRADERS[0] and mistakes else {}),
        **({"by": by} if grader == GRADERS[0] and by else {}),
    }


def _evaluation(folder: Path) -> EvaluationResult:
    summary = read_json(folder / SUMMARY)
    path = folder / ATTEMPTS
    if fault := _fault(summary):
        raise UserError(f"{folder / SUMMARY}: {fault}")
    attempts = tuple(_attempt(row, f"{path}: attempt {i}") for i, row in enumerate(read_jsonl(path), start=1))
    # Attempts are compared by their problem's id, so a second answer would silently replace the first.
    ids = [(attempt.problem_id, attempt.seed) for attempt in attempts]
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: problem {Counter(ids).most_common(1)[0][0][0]!r} is answered more than once")
    # The files of an evaluation that was stopped, or of two, do not agree.
    seeds = len(summary.get("seeds") or [0])
    if not attempts or summary.get("n", len(attempts)) * seeds != len(attempts):
        raise UserError(f"{path}: {len(attempts)} attempts, and {SUMMARY} counts {summary.get('n')}: evaluate again")
    task = str(summary.get("task") or folder.name)
    scorer = summary.get("scorer")
    by = f" by {scorer_name(scorer)}" if isinstance(scorer, dict) else ""
    return EvaluationResult(folder, task, str(summary.get("decode") or "") + by, summary, attempts)


def _attempt(row: Mapping[str, Any], where: str) -> Attempt:
    try:
        attempt = attempt_of(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not an attempt ({error})") from error
    grades = {f"{name}.verdict": getattr(attempt, name).verdict for name in GRADERS}
    texts = {"problem_id": attempt.problem_id, **grades}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: not an attempt ({name} is {value!r:.40})")
    if not all(isinstance(one.share, int | float) and 0 <= one.share <= 1 for one in attempt.samples):
        raise UserError(f"{where}: not an attempt (a share of the answer is not in [0, 1])")
    if not isinstance(attempt.tokens, int) or attempt.tokens < 0:
        raise UserError(f"{where}: not an attempt (tokens is {attempt.tokens!r:.40})")
    return attempt


def _fault(summary: Any) -> str:
    """What is wrong with a summary, whoever wrote it; empty when all is well."""
    if not isinstance(summary, dict):
        return "expected an object"
    mistakes = summary.get("mistakes") or {}
    if not isinstance(mistakes, dict) or not all(map(_counts, mistakes.values())):
        return "`mistakes` should count, by kind, how often each was made and reached"
    by = summary.get("by") or {}
    if not isinstance(by, dict) or not all(
        isinstance(kinds, dict) and all(map(_figures, kinds.values())) for kinds in by.values()
    ):
        return "`by` should hold, by kind of problem, n, accuracy, ci_low and ci_high"
    if not isinstance(summary.get("seeds") or {}, dict):
        return "`seeds` should give the accuracy under each seed"
    if not isinstance(summary.get("base") or "", str):
        return "`base` should name a run"
    return ""


def _counts(mistake: Any) -> bool:
    return isinstance(mistake, dict) and all(isinstance(mistake.get(name), int) for name in ("made", "reached"))


def _figures(kind: Any) -> bool:
    keys = ("n", "accuracy", "ci_low", "ci_high")
    return isinstance(kind, dict) and all(isinstance(kind.get(key), int | float) for key in keys)


def _evaluated(root: Path) -> list[str]:
    """Names of the runs in a folder that hold an evaluation."""
    return [path.name for path in root.iterdir() if (path / "eval").is_dir()] if root.is_dir() else []
