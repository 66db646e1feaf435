"""One job: a claimed run folder with its configuration, and the processes that work in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import processes
from stepdpo.cli.job_result import ExitCode, JobResult
from stepdpo.cli.resume import resumed_config
from stepdpo.core.config import build, resolved
from stepdpo.core.errors import UserError
from stepdpo.runtime import artifact_cache
from stepdpo.runtime.atomic_io import read_json, tidy, write_json, write_text
from stepdpo.runtime.disk_space import no_space
from stepdpo.runtime.manifest import MANIFEST, manifest
from stepdpo.runtime.run_folder import CONFIG, SUMMARY, claim, has_begun, keep_new, keep_old
from stepdpo.runtime.run_lock import LOCKS

RESULTS = ("model/config.json", SUMMARY)
"""What a finished run holds, by verb."""
Work = Callable[[DictConfig], JobResult]
"""(configuration of a run) -> how its work ended."""


def run_in(
    folder: Path,
    verb: str,
    config: DictConfig,
    choices: Mapping[str, str],
    *,
    force: bool = False,
    resume: bool = False,
    given: Sequence[str] = (),
    note: Mapping[str, Any] | None = None,
    work: Work | None = None,
) -> JobResult:
    """Claim a run folder, write its config.yaml and manifest.json, and work in it; returns how that ended.

    A resumed run keeps the configuration it was started with; `given` words that say otherwise are refused, and one
    that has finished is left as it is. A folder in which nothing was begun, however the work ended, is left free for
    the next attempt, with the run that `force` was to replace. Secrets stay references: the configuration is written
    unresolved. `note` goes into the manifest. `work` is done in place of the verb's own; it sees for itself what has
    finished.
    """
    if force and _holds_something(folder):
        build(config)  # a mistake in the settings must not cost the run that they would replace
    there = next(place for place in folder.absolute().parents if place.is_dir())
    with claim(folder, force=force, resume=resume):
        tidy(folder)
        fresh = not (resume and (folder / CONFIG).is_file())
        if not fresh:
            config = resumed_config(folder / CONFIG, config, given)
        if resume and not work and finished(folder):
            print(f"{folder} has finished: nothing to resume", flush=True)
            return JobResult(already_finished=True)

        def begin() -> JobResult:
            if fresh:
                # Before the configuration: only a folder with a manifest of ours can be resumed, or replaced by force.
                seed = int(config.get("seed", 0))
                write_json(folder / MANIFEST, {**manifest(sys.argv, seed, choices), **(note or {})})
            write_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=False))
            return work(config) if work else _start(verb, folder, config, resume)

        result = _result_of(begin, folder)
        artifact_cache.tidy()  # of a worker that was killed; what went with its command, the next one finds
        begun = result.ok or result.begun or has_begun(folder)
        if begun:
            keep_new(folder)
        elif not resume:
            keep_old(folder)
    if not (begun or resume) and not _holds_something(folder):
        shutil.rmtree(folder)  # the lock's file too, so only after it has been let go
        _remove_empty(folder.absolute(), there)
    return result


def finished(folder: Path) -> bool:
    """Whether a run has nothing left to do."""
    return any((folder / name).is_file() for name in RESULTS)


def started_with(folder: Path) -> dict[str, Any]:
    """The manifest of a run; empty where there is none yet. Raises UserError for a file that is none."""
    path = folder / MANIFEST
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a run's manifest")
    if not isinstance(found.get("rounds") or {}, dict):
        raise UserError(f"{path}: not a run's manifest (`rounds` should be settings)")
    for key in ("then", "then_with"):
        words = found.get(key, [])
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise UserError(f"{path}: not a run's manifest (`{key}` should be a list of words)")
    return found


def _result_of(work: Callable[[], JobResult], folder: Path) -> JobResult:
    """A mistake found before any worker starts, as in a hostfile, ends a job as one that a worker finds."""
    try:
        return work()
    except UserError as error:
        return JobResult(ExitCode.USER_ERROR, str(error))
    except OSError as error:
        return JobResult(ExitCode.FAILED, no_space(error, folder) or str(error))


def _start(verb: str, folder: Path, config: DictConfig, resume: bool) -> JobResult:
    engine: Any = resolved(config.get("engine") or OmegaConf.create({}))
    return processes.start(verb, folder, engine, resume)


def _remove_empty(folder: Path, there: Path) -> None:
    """The folders above one that is gone, up to where they were `there` before."""
    for place in folder.parents:
        if place == there or any(place.iterdir()):
            return
        place.rmdir()


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(path.name not in LOCKS for path in folder.iterdir())
