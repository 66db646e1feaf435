"""What tells one set of weights from another: a hash of the files that a model, or an adapter, is loaded from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stepdpo.runtime import artifact_cache
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.secrets import redact_text

FILES = ("*.safetensors", "config.json", "adapter_config.json")


def fingerprint(folder: Path) -> str:
    """SHA-256 of the weights and the configuration in a folder.

    A large model takes seconds to read, so the answer is remembered for files that keep their size and time.
    """
    files = sorted(path for pattern in FILES for path in folder.glob(pattern))
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    record = artifact_cache.entry(
        "weights", {"folder": str(folder.resolve()), "files": [list(state) for state in states]}
    )
    known = record.with_suffix(".json")
    if known.is_file():
        try:
            return str(json.loads(known.read_text(encoding="utf-8"))["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not readable: hashed again below
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            # A hash of hashes: the files' names and bounds count, and none is read whole into memory.
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    artifact_cache.make(known.parent)
    write_json(known, {"sha256": digest.hexdigest(), "folder": redact_text(str(folder))})
    return digest.hexdigest()
