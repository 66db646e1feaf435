"""What a run was started with: its words, its seed, and the machine and packages they met."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.secrets import redact_argv

MANIFEST = "manifest.json"
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "deepspeed", "accelerate", "peft", "datasets", "vllm",
    "hydra-core", "omegaconf", "math-verify", "sympy", "scipy", "numpy", "wandb",
)  # fmt: skip


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


def started_on(folder: Path) -> str:
    """The day (YYYY-MM-DD, UTC) that a run was started on, however often it was resumed; today without a manifest."""
    try:
        return str(read_json(folder / MANIFEST)["started"])[:10]
    except (UserError, LookupError, TypeError):  # none, or none of ours
        return datetime.now(UTC).date().isoformat()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(source: Path) -> dict[str, Any] | None:
    """Commit of the package's own source, and whether tracked files differ; None for an installed package."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(source), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an environment inside some other repository is not ours
        return {"sha": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
