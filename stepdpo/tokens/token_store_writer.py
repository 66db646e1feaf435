"""Writing a token store: pair by pair, with nothing of their tokens held in memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stepdpo.tokens.token_store import INDEX_RECORD, WIDTH, Read
from stepdpo.tokens.token_tree import Ints, TokenSequence, shared_length, sort_key

SMALL = 64 * 2**20
"""Bytes of tokens up to which a store is hashed before it is used; a larger one would hold up the start of a run."""


@dataclass(frozen=True)
class StoreInfo:
    """What came of writing a store, for whoever opens it."""

    pairs: int
    tokens: int
    index: str
    """SHA-256 of the index."""
    content: str
    """SHA-256 of the tokens."""
    fingerprint: str
    """Hash of what is read and what is scored, in order."""


@contextmanager
def store_writer(folder: Path, name: str) -> Iterator[StoreWriter]:
    """A writer of the store `name`; `finish` it within the block."""
    with (folder / f"{name}.tokens").open("w+b", buffering=1 << 20) as sink:
        yield StoreWriter(sink, folder / f"{name}.index")


class StoreWriter:
    """Takes pairs in the order of their numbers; keeps their entries, and none of their tokens."""

    def __init__(self, sink: BinaryIO, index: Path | None = None) -> None:
        self.sink, self.index = sink, index
        self.digest = hashlib.sha256()
        self.size = 0
        self._full: list[NDArray[Any]] = []
        self._recent: list[tuple[Any, ...]] = []

    def add(self, number: int, sequences: Sequence[TokenSequence], confidence: float, group: int) -> None:
        """One pair: one sequence, or a chosen and a rejected one."""
        chosen, *others = sequences
        tokens, lengths = chosen.tokens, (len(chosen.tokens), 0, 0, chosen.first_scored, 0)
        for rejected in others:
            shared = shared_length(chosen.tokens, rejected.tokens)
            tokens = np.concatenate([tokens, rejected.tokens[shared:]])
            lengths = (*lengths[:1], len(rejected.tokens), shared, chosen.first_scored, rejected.first_scored)
        raw = tokens.astype("<i4", copy=False).tobytes()
        self._recent.append((number, self.size, *lengths, group, 0, zlib.crc32(raw), confidence))
        self.sink.write(raw)
        self.digest.update(raw)
        self.size += len(tokens)
        if len(self._recent) == 4096:  # tuples take several times the memory of the array they become
            self._flush()

    def _flush(self) -> None:
        self._full.append(np.array(self._recent, INDEX_RECORD))
        self._recent.clear()

    def entries(self, read: Read) -> NDArray[Any]:
        """The whole index, with the order of the pairs of a problem; `read` gives back what was written."""
        self._flush()
        entries = np.concatenate(self._full)
        entries["rank"] = ranks(entries, read)
        return entries

    def finish(self) -> StoreInfo:
        """Write the index, and bring both files to the disc."""
        assert self.index is not None
        # Both are on the disc before the entry that holds them is renamed into place: a power cut leaves no entry that
        # looks whole and is not.
        self.sink.flush()
        handle = self.sink.fileno()
        entries = self.entries(lambda first, count: os.pread(handle, count, first))
        os.fsync(handle)
        with self.index.open("wb") as file:
            entries.tofile(file)
            os.fsync(file.fileno())
        content = self.digest.hexdigest()
        # The fingerprint is the same hash, gone on with where each sequence ends and from where it is scored.
        for name in ("chosen", "rejected", "shared", "chosen_first", "rejected_first"):
            self.digest.update(entries[name].tobytes())
        index = hashlib.sha256(entries.tobytes()).hexdigest()
        return StoreInfo(len(entries), self.size, index, content, self.digest.hexdigest())


def verify(folder: Path, name: str, written: StoreInfo) -> str:
    """What is wrong with the files of a store, or nothing.

    The tokens of a large one are not read here: each pair has a checksum, which is looked at whenever it is read.
    """
    tokens, index = folder / f"{name}.tokens", folder / f"{name}.index"
    try:
        size = tokens.stat().st_size
        if size != WIDTH * written.tokens:
            return f"{tokens.name} holds {size} bytes, not {WIDTH * written.tokens}"
        with index.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != written.index:
                return f"{index.name} has changed"
        with tokens.open("rb") as file:
            if size <= SMALL and hashlib.file_digest(file, "sha256").hexdigest() != written.content:
                return f"{tokens.name} has changed"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def ranks(entries: NDArray[Any], read: Read) -> Ints:
    """The place of each pair among those of its problem, ordered by tokens: neighbours share most."""
    found = np.zeros(len(entries), np.int32)
    order = np.argsort(entries["group"], kind="stable")
    groups = entries["group"][order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(starts, append=len(groups))
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        rows = order[start : start + count]
        place = sorted(range(count), key=[_sortable(entries[row], read) for row in rows].__getitem__)
        found[rows[place]] = np.arange(count)
    return found


def _sortable(entry: Any, read: Read) -> tuple[bytes, bytes]:
    """Sorts as the tokens do: by the chosen sequence, then by what the rejected one has of its own."""
    count = int(entry["chosen"]) + max(0, int(entry["rejected"]) - int(entry["shared"]))
    tokens = np.frombuffer(read(WIDTH * int(entry["start"]), WIDTH * count), "<i4")
    return sort_key(tokens[: entry["chosen"]]), sort_key(tokens[entry["chosen"] :])
