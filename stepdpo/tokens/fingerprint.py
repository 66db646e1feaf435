"""The key under which tokens are kept: a hash of everything that they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import stepdpo
from stepdpo.data.preference_file import fingerprint
from stepdpo.data.validation import Loaded

FORMAT = 1
"""Layout of the files of an entry."""
SOURCES = (
    "core/steps.py",
    "data/*.py",
    "tinymath/solutions.py",
    "tokens/preprocess_worker.py",
    "tokens/token_store_writer.py",
    "tokens/tokenization.py",
)
"""Our own code that decides which tokens come of which data; another version of it makes other entries."""


def cache_key(
    data: str, level: Any, template: Any, tokenizer: Any, lengths: Any, needs: frozenset[str]
) -> dict[str, Any]:
    """Plain values that name the tokens of some data; `data` is what they are known by."""
    return {
        "format": FORMAT,
        "data": data,
        "level": described(level),
        "template": described(template),
        "tokenizer": tokenizer_identity(tokenizer),
        "lengths": described(lengths),
        "sides": "both" if "rejected" in needs else "chosen",
        "mismatched": "reference_point" in needs,
        "code": _code_of([level, template]),
    }


def data_identity(dataset: Any) -> tuple[str, Loaded | None]:
    """What the data are known by; loaded, where only that tells."""
    known = dataset.fingerprint() if hasattr(dataset, "fingerprint") else None
    if known is not None:
        return f"{described(type(dataset))} {known} {_code_of([dataset])}", None
    loaded: Loaded = dataset.load()
    sides = [fingerprint(loaded.preferences), fingerprint(loaded.heldout)]
    bad = [dataclasses.asdict(row) for row in loaded.bad]
    rest = json.dumps([dict(loaded.counts), bad, loaded.max_bad], sort_keys=True)
    return f"rows {_hash([*sides, rest])}", loaded


def tokenizer_identity(tokenizer: Any) -> str:
    """Hash of all that makes tokens of texts, and of the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = [str(getattr(tokenizer, name, None)) for name in ("bos_token_id", "eos_token_id", "chat_template")]
    return _hash([backend.to_str() if backend is not None else repr(tokenizer), *own])


def described(part: Any) -> str:
    """A part by its class and settings; parts that are no dataclasses by their name alone."""
    kind = part if isinstance(part, type) or inspect.isfunction(part) else type(part)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"{name} {part!r}" if dataclasses.is_dataclass(part) and not isinstance(part, type) else name


def _code_of(parts: Iterable[Any]) -> str:
    """Hash of our own sources, and of those of parts that others wrote."""
    root = Path(stepdpo.__file__).parent
    files = {path for pattern in SOURCES for path in root.glob(pattern)}
    for part in parts:
        try:
            files.add(Path(inspect.getfile(part if inspect.isfunction(part) else type(part))))
        except (TypeError, OSError):
            continue
    return _hash(path.read_bytes().decode("utf-8", "replace") for path in sorted(files) if path.is_file())


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
