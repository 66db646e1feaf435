"""Checkpoints that are whole or do not count: written aside, hashed, listed in a manifest, then renamed.

    checkpoints/.step-000100.tmp   being written; nothing ever reads it
    checkpoints/step-000100        committed: MANIFEST.json names every file with its size and sha256
    checkpoints/.step-000100.old   the previous one of the same step, for the moment between two renames

The manifest tells a damaged checkpoint from a whole one; it is no signature, and does not tell who wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.runtime.atomic_io import sync_folder, write_text

MANIFEST = "MANIFEST.json"
FORMAT = 1
_SCRATCH = re.compile(r"\.step-(\d+)(?:\.old)?\.tmp")
_COMMITTED = re.compile(r"step-(\d+)|\.step-(\d+)\.old")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that will not be used, and why."""

    path: Path
    problems: tuple[str, ...]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a run at an optimizer step lives."""
    if step < 0:
        raise ValueError(f"a step is not negative: {step}")
    return folder / "checkpoints" / f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name; ValueError where there is none."""
    match = _COMMITTED.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"{checkpoint}: not named like a checkpoint (step-000100)")
    return int(match[1] or match[2])


def begin_checkpoint(folder: Path, step: int) -> Path:
    """An empty folder to write into, left-overs of an interrupted attempt removed. One process calls this."""
    final = checkpoint_path(folder, step)
    scratch = final.with_name(f".{final.name}.tmp")
    _fresh(scratch).mkdir(parents=True)
    return scratch


def commit_checkpoint(scratch: Path, final: Path) -> None:
    """Make what was written into `scratch` the checkpoint `final`, at once or not at all."""
    names = _files(scratch)
    if not names:
        raise ValueError(f"{scratch}: nothing was written, so there is no checkpoint to commit")
    # First every file and its name to the disc, then the manifest that vouches for them, then the rename: whatever a
    # power cut leaves is a checkpoint that verifies, or one that was never committed.
    files = {name: _describe(scratch / name) for name in names if name != MANIFEST}
    for inner in sorted({(scratch / name).parent for name in files}):
        sync_folder(inner)
    write_text(scratch / MANIFEST, _manifest(step_of(final), files))
    previous = final.with_name(f".{final.name}.old")
    # A rename does not replace a folder that holds files, so an earlier one of the same step makes room. Until the next
    # rename `committed` finds it under its other name.
    if final.exists():
        final.rename(_fresh(previous))
    os.replace(scratch, final)  # noqa: PTH105 - the commit
    sync_folder(final.parent)
    _fresh(previous)


@contextmanager
def checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """Write into the folder this yields; leaving commits it, an exception (a full disc) removes it."""
    scratch = begin_checkpoint(folder, step)
    try:
        yield scratch
        commit_checkpoint(scratch, checkpoint_path(folder, step))
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def committed(folder: Path) -> list[Path]:
    """Checkpoints of a run by name, newest first, unverified."""
    parent = folder / "checkpoints"
    found: dict[int, Path] = {}
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:  # `.old` sorts before the real one
        if _COMMITTED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            found[step_of(path)] = path
    return [found[step] for step in sorted(found, reverse=True)]


def verify(path: Path, *, hashes: bool = True) -> list[str]:
    """What is wrong with a checkpoint: nothing, when the list is empty. Without `hashes` only names and sizes."""
    try:
        text = (path / MANIFEST).read_bytes().decode("utf-8")
        manifest = json.loads(text)
        files: dict[str, dict[str, Any]] = dict(manifest["files"])
        if manifest["format"] != FORMAT:
            return [f"{MANIFEST}: format {manifest['format']!r}, this version reads {FORMAT}"]
        if text != _manifest(manifest["step"], files) or manifest["step"] != step_of(path):
            return [f"{MANIFEST}: damaged"]
        names = _files(path)
    except FileNotFoundError:
        return [f"{MANIFEST}: missing, so it was never committed"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST}: unreadable ({error})"]
    problems = [f"{name}: not in the manifest" for name in names if name not in files and name != MANIFEST]
    for name, expected in files.items():
        problems += [f"{name}: missing"] if name not in names else _compare(path / name, name, expected, hashes)
    return problems


def newest_whole(folder: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest checkpoint that verifies, and the newer ones that do not, each with its reasons."""
    skipped: list[Skipped] = []
    for path in committed(folder):
        problems = verify(path)
        if not problems:
            return path, skipped
        skipped.append(Skipped(path, tuple(problems)))
    return None, skipped


def prune(folder: Path, keep: int) -> list[Path]:
    """Delete what is older than the `keep` newest whole checkpoints (sizes checked, not hashes); what went.

    Left-overs of interrupted saves go too, once a newer checkpoint is whole.
    """
    if keep < 1:
        raise ValueError(f"keep at least one checkpoint, not {keep}")
    paths = committed(folder)
    # Sizes only: hashing is reading, and this runs after every save. Resuming (`newest_whole`) looks at the hashes.
    whole = [step_of(path) for path in paths if not verify(path, hashes=False)][:keep]
    gone = [path for path in paths if len(whole) == keep and step_of(path) < whole[-1]]
    for path in gone:
        remove(path)
    for path in (folder / "checkpoints").glob(".step-*.tmp"):
        match = _SCRATCH.fullmatch(path.name)
        if match and whole and int(match[1]) < whole[0]:
            shutil.rmtree(path)
    return gone


def remove(path: Path) -> None:
    """Delete a checkpoint: first out of sight, so that half a deletion is never taken for one."""
    hidden = _fresh(path.with_name(f".{path.name.strip('.')}.tmp"))
    path.rename(hidden)
    shutil.rmtree(hidden)


def tidy(folder: Path) -> None:
    """Remove what interrupted saves left; for a process that alone writes in the run folder."""
    for path in (folder / "checkpoints").glob(".step-*.tmp"):
        if _SCRATCH.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _fresh(path: Path) -> Path:
    if path.exists():
        shutil.rmtree(path)
    return path


def _files(folder: Path) -> list[str]:
    """Relative names of the files below; a link or a device is not something a checkpoint can vouch for."""
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)} is not a plain file")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest}


def _compare(path: Path, name: str, expected: dict[str, Any], hashes: bool) -> list[str]:
    try:
        size = path.stat().st_size
        if size != expected.get("bytes"):
            return [f"{name}: {size} bytes instead of {expected.get('bytes')}"]
        with path.open("rb") as file:
            if hashes and hashlib.file_digest(file, "sha256").hexdigest() != expected.get("sha256"):
                return [f"{name}: contents changed (sha256 differs)"]
    except OSError as error:
        return [f"{name}: unreadable ({error.strerror})"]
    return []


def _manifest(step: int, files: dict[str, dict[str, Any]]) -> str:
    body = {"format": FORMAT, "step": step, "files": files}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "digest": digest}, indent=1)
