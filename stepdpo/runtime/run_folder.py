"""The run folder, where the verbs meet: who owns it, what it was started with, and how it comes to be.

runs/NAME/  config.yaml  manifest.json  data.json  metrics.jsonl  quarantine.jsonl  checkpoints/step-000100/
            model/  eval/<task>/{attempts.jsonl|judged.jsonl,summary.json}  inspect/<data>/{inspect.jsonl,summary.json}
            report.md  report.json
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.manifest import MANIFEST
from stepdpo.runtime.run_lock import LOCKS, busy, holder, lock
from stepdpo.runtime.secrets import redact_text

CONFIG = "config.yaml"
QUARANTINE = "quarantine.jsonl"
ATTEMPTS = "attempts.jsonl"
JUDGED = "judged.jsonl"
"""Of an evaluation that asks where solutions go wrong: what was said of each."""
SUMMARY = "summary.json"
INSPECT = "inspect"
"""The folder of what `stepdpo inspect` found, a folder below it for each data set or task."""
INSPECTED = "inspect.jsonl"
MODEL_FILE = "config.json"
"""In `model/`: the sign that it is there, since it is put in place whole."""
FINISHED = "finished.jsonl"
ATTEMPTS_LOG = "attempts.partial.jsonl"
"""The attempts of an evaluation as they come, until all are there."""
UNFINISHED = "summary.partial.json"
"""A summary of what problems are left out of that are to be tried again."""
REPLACED = ".replaced"
"""What lay in a folder that force=true gave to a new run, until that has begun."""
METRICS = "metrics.jsonl"
DATA = "data.json"
"""What a training was given: how many rows, what became of them, and a hash of what was read and scored."""
GUARD = "guard/"
"""Of the names in metrics.jsonl under which a training's guard keeps what has passed its bounds."""
SECONDS = "seconds.json"
"""Beside the folders of a round: what its training took."""
LONGEST = 200
"""Most characters of a run's name: a round number below the 255 bytes that file systems allow a file's name."""
_PART = re.compile(r"\w[\w=,+.@-]*")
"""What no shell, file system or option parser takes for something else."""


def run_path(root: Path, name: str) -> Path:
    """`root/name`, refused unless it is a plain relative name that stays inside `root`."""
    parts = name.split("/")
    if len(name) > LONGEST or not all(_PART.fullmatch(part) for part in parts):
        raise UserError(f"run name {name!r}: use letters, digits and = , + . @ _ - (and / between folders)")
    if redact_text(str(root / name)) != str(root / name):  # by way of `${oc.env:...}`: folders are seen by others
        raise UserError("the run's name or `runs` holds a secret")
    folder = root / name
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"run name {name!r}: leads outside {root} through a link")
    return folder


def create(folder: Path, *, force: bool = False, resume: bool = False) -> Path:
    """Make the run folder, or take over an existing one by `resume` (kept) or `force` (put aside for a new one).

    What was put aside is deleted by `keep_new`, or put back by `keep_old`.
    """
    _check(folder, force=force, resume=resume)
    shutil.rmtree(folder / f"{REPLACED}.tmp", ignore_errors=True)  # of a process killed while it deleted
    aside = folder / REPLACED
    if aside.is_dir() and not any(aside.iterdir()):
        aside.rmdir()  # made for what was never moved
    if _half_put_aside(folder):
        keep_old(folder)
    if force and folder.is_dir():
        _put_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def has_begun(folder: Path) -> bool:
    """Whether work was done in a run folder that is worth keeping: an update, a checkpoint, a problem, a result.

    Of rounds, whether a stage of them has begun.
    """
    if any((folder / name).is_file() for name in (f"model/{MODEL_FILE}", SUMMARY)):
        return True
    if (
        any((folder / "checkpoints").glob("step-*/MANIFEST.json"))
        or _size(folder / FINISHED)
        or _size(folder / ATTEMPTS_LOG)
    ):
        return True
    if any(int(row.get("step", 0)) > 0 for row in whole_lines(folder / METRICS)):
        return True
    return any(has_begun(stage) for stage in folder.glob("round-*/*") if stage.is_dir())


def keep_new(folder: Path) -> None:
    """The new run stays: what it replaces is deleted."""
    gone = folder / f"{REPLACED}.tmp"  # out of sight at once, since half a run must never be put back
    shutil.rmtree(gone, ignore_errors=True)
    if (folder / REPLACED).exists():
        (folder / REPLACED).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def keep_old(folder: Path) -> None:
    """The new run never began: it goes, but for its bad rows, and what it was to replace is put back."""
    aside = folder / REPLACED
    if not _half_put_aside(folder):
        _empty(folder, keep=(*LOCKS, QUARANTINE, REPLACED))
    if not aside.is_dir():
        return
    for path in _manifest_last(aside):  # without one, an interrupted folder is known to be half put aside
        target = folder / path.name
        if target.is_file():
            target.unlink()
        path.rename(target)
    aside.rmdir()


def _put_aside(folder: Path) -> None:
    """Make room for a new run; one that never began gives way to it for good."""
    aside = folder / REPLACED
    if aside.is_dir() and has_begun(folder):
        keep_new(folder)
    elif aside.is_dir():
        _empty(folder, keep=(*LOCKS, REPLACED))
        return
    aside.mkdir()
    for path in reversed(_manifest_last(folder)):  # the manifest first: see `_half_put_aside`
        if path.name not in (*LOCKS, REPLACED):
            path.rename(aside / path.name)


def _half_put_aside(folder: Path) -> bool:
    """Whether somebody was interrupted while moving a run aside, or back."""
    return (folder / REPLACED).is_dir() and not (folder / MANIFEST).exists()


def _manifest_last(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def whole_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSON Lines file that a killed process may have torn."""
    with suppress(OSError, ValueError), path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def passed_bounds(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Which bounds of its guard a training passed, each with the first update after which it had, by metrics.jsonl."""
    first: dict[str, int] = {}
    for line in lines:
        for name in line if isinstance(line, dict) and isinstance(line.get("step"), int) else ():
            if name.startswith(GUARD):
                first.setdefault(name.removeprefix(GUARD), line["step"])
    return first


@contextmanager
def claim(folder: Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """Create the run folder and hold it until the block ends: what a verb that writes a run uses."""
    _check(folder, force=force, resume=resume)  # before the lock, which would make the folder
    with lock(folder):
        yield create(folder, force=force, resume=resume)


def _check(folder: Path, *, force: bool, resume: bool) -> None:
    if force and resume:
        raise UserError("force=true starts anew, resume=true goes on: give one of them")
    if force and folder.is_symlink():
        raise UserError(f"{folder} is a link; force=true does not delete what a link points to")
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a link to nothing")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a run folder")
    owner = holder(folder)
    if owner and owner.get("pid") != os.getpid():  # `claim` comes here a second time, with the lock in hand
        raise busy(folder, owner)
    if not folder.is_dir() or all(path.name in (*LOCKS, QUARANTINE) for path in folder.iterdir()):
        return  # nothing but the bad rows of an attempt that never began
    if not (force or resume):
        raise UserError(f"{folder} already exists: resume=true goes on with it, force=true deletes it first")
    if not (_is_ours(folder) or _is_ours(folder / REPLACED)):
        raise UserError(
            f"{folder} is not a run of stepdpo (no {MANIFEST} of ours, or another user's): choose another name"
        )


def _is_ours(folder: Path) -> bool:
    """Whether a run of this very user lies in a folder: its configuration will be believed, and its state opened."""
    path = folder / MANIFEST
    try:
        # A link in a stranger's folder to the manifest of a run would open that folder to force=true.
        if path.is_symlink() or (folder / CONFIG).is_symlink():
            return False
        files = [path for path in (path, folder / CONFIG) if path.exists()]
        return all(path.stat().st_uid == os.getuid() for path in files) and "stepdpo" in dict(read_json(path))
    except (OSError, UserError, TypeError, ValueError):
        return False


def _empty(folder: Path, keep: Sequence[str]) -> None:
    """Delete what is inside, links as links, the manifest last: interrupted, it is still recognisably ours."""
    for path in _manifest_last(folder):
        if path.name in keep:
            continue  # as the lock, which is held: another process could lock a new file of that name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
