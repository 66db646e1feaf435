"""The run folder, where the verbs meet: who owns it, what it was started with, and how it comes to be.

    runs/NAME/  config.yaml  manifest.json  metrics.jsonl  quarantine.jsonl  checkpoints/step-000100/
                model/  eval/<task>/{attempts.jsonl,summary.json}  report.md  report.json

One door for the callers: the writers, the redaction and the checkpoint protocol are re-exported here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import encode, read_json, read_jsonl, write_json, write_jsonl, write_text
from stepdpo.runtime.checkpoint_files import (
    Skipped,
    begin_checkpoint,
    checkpoint,
    checkpoint_path,
    commit_checkpoint,
    newest_whole,
    prune,
    step_of,
    verify,
    whole_checkpoints,
)
from stepdpo.runtime.run_lock import LOCK, busy, holder, lock
from stepdpo.runtime.secrets import is_secret, redact, redact_argv, redact_text

__all__ = [
    "LOCK", "Skipped", "begin_checkpoint", "checkpoint", "checkpoint_path", "claim", "commit_checkpoint", "create",
    "encode", "holder", "is_secret", "lock", "manifest", "newest_whole", "prune", "read_json", "read_jsonl",
    "redact", "redact_argv", "redact_text", "run_folder", "step_of", "verify", "whole_checkpoints", "write_json",
    "write_jsonl", "write_text",
]  # fmt: skip

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.jsonl"
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "deepspeed", "accelerate", "peft", "datasets", "vllm",
    "hydra-core", "omegaconf", "math-verify", "sympy", "scipy", "numpy", "wandb",
)  # fmt: skip
_PART = re.compile(r"\w[\w=,+.@-]*")


def run_folder(root: Path, name: str) -> Path:
    """`root/name`, refused unless it is a plain relative name that stays inside `root`."""
    parts = name.split("/")
    if len(name) > 200 or not all(_PART.fullmatch(part) for part in parts):
        raise UserError(f"run name {name!r}: use letters, digits and = , + . @ _ - (and / between folders)")
    folder = root / name
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"run name {name!r}: leads outside {root} through a link")
    return folder


def create(folder: Path, *, force: bool = False, resume: bool = False) -> Path:
    """Make the run folder, or take over an existing one by `resume` (kept) or `force` (deleted and made anew)."""
    _check(folder, force=force, resume=resume)
    if force and folder.is_dir():
        _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def claim(folder: Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """Create the run folder and hold it until the block ends: what a verb that writes a run uses."""
    _check(folder, force=force, resume=resume)
    with lock(folder):
        yield create(folder, force=force, resume=resume)


def manifest(argv: Sequence[str], seed: int, choices: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a run was started with; secrets in `argv` are redacted. `choices`: option by config group (algo: tdpo)."""
    return {
        "stepdpo": stepdpo.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": redact_argv(argv),
        "seed": seed,
        "choices": dict(choices or {}),
        "git": _git(Path(stepdpo.__file__).parent),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    if owner and owner.get("pid") != os.getpid():
        raise busy(folder, owner)
    if not folder.is_dir() or all(path.name in (LOCK, QUARANTINE) for path in folder.iterdir()):
        return  # nothing but the bad rows of an attempt that never began
    if not (force or resume):
        raise UserError(f"{folder} already exists: resume=true goes on with it, force=true deletes it first")
    if not _is_ours(folder):
        raise UserError(f"{folder} is not a run of stepdpo (no {MANIFEST} of ours): choose another name")


def _is_ours(folder: Path) -> bool:
    path = folder / MANIFEST
    try:
        return not path.is_symlink() and "stepdpo" in dict(read_json(path))
    except (UserError, TypeError, ValueError):
        return False


def _empty(folder: Path) -> None:
    """Delete what is inside, links as links, the manifest last: interrupted, it is still recognisably ours."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(source: Path) -> dict[str, Any] | None:
    """Commit of the package's own source, and whether tracked files differ; None for an installed package."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(source), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")
        return {"sha": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
