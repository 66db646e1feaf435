"""The key under which tokens are kept: a hash of everything that they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stepdpo.core.package_data import ROOT, sources
from stepdpo.core.protocols import Level, Template
from stepdpo.data.preference_file import fingerprint
from stepdpo.data.validation import DatasetSpec, Fingerprinted, Loaded
from stepdpo.tokens.examples import unit_of
from stepdpo.tokens.lengths import Lengths

FORMAT = 2
"""Layout of the files of an entry."""
SOURCES = (
    "core/steps.py",
    "core/types.py",
    "data/*.py",
    "tinymath/solutions.py",
    "tokens/examples.py",
    "tokens/lengths.py",
    "tokens/preprocess_worker.py",
    "tokens/side_marks.py",
    "tokens/step_file.py",
    "tokens/step_spans.py",
    "tokens/token_store.py",
    "tokens/token_store_writer.py",
    "tokens/tokenization.py",
    "tokens/trie.py",
)
"""Our own code that decides which tokens come of which data; another version of it makes other entries.

Not the token tree, the packing and the collator: they work on what an entry holds, whenever it is read.
"""


def cache_key(
    data: str, level: Level, template: Template, tokenizer: Any, lengths: Lengths, needs: frozenset[str]
) -> dict[str, Any]:
    """Plain values that name the tokens of some data; `data` is what they are known by."""
    return {
        "format": FORMAT,
        "data": data,
        "level": described(level),
        "template": described(template),
        "tokenizer": tokenizer_identity(tokenizer),
        "lengths": described(lengths),
        "examples": unit_of(needs).value,
        "also": sorted({"steps", "labels", "rest", "right"} & needs),
        "mismatched": "reference_point" in needs,
        "code": _code_of([level, template]),
    }


def data_identity(dataset: DatasetSpec) -> tuple[str, Loaded | None]:
    """What the data are known by; loaded, where only that tells."""
    known = dataset.fingerprint() if isinstance(dataset, Fingerprinted) else None
    if known is not None:
        # Settings and files, not rows: whether there is an entry is then known without reading a single row.
        return f"{described(type(dataset))} {known} {_code_of([dataset])}", None
    loaded = dataset.load()
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


def _code_of(parts: Iterable[Any], root: Path = ROOT) -> str:
    """Hash of our own sources, and of those of parts that others wrote."""
    files = set(sources(SOURCES, root))
    for part in _with_inner(parts):
        try:
            files.add(Path(inspect.getfile(part if inspect.isfunction(part) else type(part))))
        except (TypeError, OSError):
            continue  # in no file: its settings alone tell it from others
    return _hash(path.read_bytes().decode("utf-8", "replace") for path in sorted(files) if path.is_file())


def _with_inner(parts: Iterable[Any]) -> Iterator[Any]:
    """The parts and, within them, the parts they are made of (the templates of a mixed one)."""
    for part in parts:
        yield part
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            values = [getattr(part, field.name) for field in dataclasses.fields(part)]
            inner = [value for some in values for value in (some if isinstance(some, list | tuple) else [some])]
            yield from _with_inner(value for value in inner if dataclasses.is_dataclass(value))


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
