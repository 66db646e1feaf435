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

from stepdpo.tokens.step_file import StepFile
from stepdpo.tokens.step_spans import Ints, Steps
from stepdpo.tokens.token_store import EXAMPLE, RESPONSE, WIDTH, Read
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.trie import shared_length, sort_key

SMALL = 64 * 2**20
"""Bytes of tokens up to which a store is hashed before it is used; a larger one would hold up the start of a run."""


@dataclass(frozen=True)
class StoreInfo:
    """What came of writing a store, for whoever opens it."""

    pairs: int
    """Examples, which mostly are pairs."""
    tokens: int
    index: str
    """SHA-256 of the index, of the responses, and of the steps where there are any."""
    content: str
    """SHA-256 of the tokens."""
    fingerprint: str
    """Hash of what is read and what is scored, in order."""


@contextmanager
def store_writer(folder: Path, name: str) -> Iterator[StoreWriter]:
    """A writer of the store `name`; `finish` it within the block."""
    with (folder / f"{name}.tokens").open("w+b", buffering=1 << 20) as sink:
        yield StoreWriter(sink, folder / name)


class StoreWriter:
    """Takes examples in the order of their numbers; keeps their entries, and none of their tokens."""

    def __init__(self, sink: BinaryIO, path: Path | None = None) -> None:
        """`path`: the files of the index, less the ends of their names."""
        self.sink, self.path = sink, path
        self.digest = hashlib.sha256()
        self.size = 0
        self._full: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._recent: list[tuple[Any, ...]] = []
        self._responses: list[tuple[int, int, int]] = []
        self._first = 0
        self._steps: list[Steps] = []

    def add(self, number: int, sequences: Sequence[TokenSequence], confidence: float, group: int) -> None:
        """One example: a response, the chosen and the rejected one of a pair, or several in the order of tokens."""
        parts: list[Ints] = []
        before: Ints | None = None
        for sequence in sequences:
            shared = 0 if before is None else shared_length(before, sequence.tokens)
            parts.append(sequence.tokens[shared:])
            self._responses.append((len(sequence.tokens), shared, sequence.first_scored))
            before = sequence.tokens
            if sequence.steps is not None:
                self._steps.append(sequence.steps)
        tokens = np.concatenate(parts)
        raw = tokens.astype("<i4", copy=False).tobytes()
        self._recent.append((number, self.size, self._first, group, 0, zlib.crc32(raw), confidence))
        self._first += len(sequences)
        self.sink.write(raw)
        self.digest.update(raw)
        self.size += len(tokens)
        if len(self._recent) >= 4096:  # tuples take several times the memory of the array they become
            self._flush()

    def _flush(self) -> None:
        self._full.append((np.array(self._recent, EXAMPLE), np.array(self._responses, RESPONSE)))
        self._recent.clear()
        self._responses.clear()

    def entries(self, read: Read) -> tuple[NDArray[Any], NDArray[Any]]:
        """The whole index, with the order of the examples of a problem; `read` gives back what was written."""
        self._flush()
        examples, responses = (np.concatenate(parts) for parts in zip(*self._full, strict=True))
        examples["rank"] = ranks(examples, responses, read)
        return examples, responses

    def steps(self) -> StepFile | None:
        """The steps of all responses, where they were given."""
        return StepFile.made_of(self._steps) if self._steps else None

    def finish(self) -> StoreInfo:
        """Write the index, and bring all files to the disc."""
        assert self.path is not None
        # All are on the disc before the entry that holds them is renamed into place: a power cut leaves no entry that
        # looks whole and is not.
        self.sink.flush()
        handle = self.sink.fileno()
        examples, responses = self.entries(lambda first, count: os.pread(handle, count, first))
        os.fsync(handle)
        examples.tofile(self.path.with_suffix(".index"))
        responses.tofile(self.path.with_suffix(".responses"))
        if steps := self.steps():
            steps.write(self.path.with_suffix(".steps"))
        for path in index_files(self.path):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        content = self.digest.hexdigest()
        # The fingerprint is the same hash, gone on with where each sequence ends and from where it is scored.
        for column in _columns(examples, responses):
            self.digest.update(column.tobytes())
        if steps:
            self.digest.update(self.path.with_suffix(".steps").read_bytes())
        return StoreInfo(len(examples), self.size, _hash(self.path), content, self.digest.hexdigest())


def _columns(examples: NDArray[Any], responses: NDArray[Any]) -> list[Ints]:
    """What a fingerprint knows of responses. Of pairs, in the columns by which earlier versions hashed them.

    The checkpoints of a run name it, and a run is gone on with whatever version began it.
    """
    first = examples["first"]
    counts = np.diff(first, append=len(responses))
    names = ("length", "shared", "scored")
    if (counts > 2).any():
        return [first, *(responses[name] for name in names)]
    length, shared, scored = (np.append(responses[name], 0) for name in names)  # one more, for who has no second
    second = np.where(counts == 2, first + 1, len(responses))
    columns = (length[first], length[second], shared[second], scored[first], scored[second])
    return [column.astype("<i4") for column in columns]


def index_files(path: Path) -> list[Path]:
    """The files of a store beside its tokens; `path` is their names without the ends."""
    steps = path.with_suffix(".steps")
    return [path.with_suffix(".index"), path.with_suffix(".responses"), *([steps] if steps.exists() else [])]


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for one in index_files(path):
        with one.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def verify(folder: Path, name: str, written: StoreInfo) -> str:
    """What is wrong with the files of a store, or nothing.

    The tokens of a large one are not read here: each pair has a checksum, which is looked at whenever it is read.
    """
    tokens = folder / f"{name}.tokens"
    try:
        size = tokens.stat().st_size
        if size != WIDTH * written.tokens:
            return f"{tokens.name} holds {size} bytes, not {WIDTH * written.tokens}"
        if _hash(folder / name) != written.index:
            return f"{name}.index, {name}.responses or {name}.steps has changed"
        with tokens.open("rb") as file:
            if size <= SMALL and hashlib.file_digest(file, "sha256").hexdigest() != written.content:
                return f"{tokens.name} has changed"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def ranks(examples: NDArray[Any], responses: NDArray[Any], read: Read) -> Ints:
    """The place of each example among those of its problem, ordered by tokens: neighbours share most."""
    found = np.zeros(len(examples), np.int32)
    order = np.argsort(examples["group"], kind="stable")
    groups = examples["group"][order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(starts, append=len(groups))
    own = np.concatenate([[0], (responses["length"] - responses["shared"]).cumsum(dtype=np.int64)])
    stops = np.append(examples["first"][1:], len(responses))

    def sortable(row: int) -> tuple[bytes, bytes]:
        """Sorts as the tokens do: by the first sequence, then by what the others have of their own."""
        first, stop = int(examples["first"][row]), int(stops[row])
        count = int(own[stop] - own[first])
        tokens = np.frombuffer(read(WIDTH * int(examples["start"][row]), WIDTH * count), "<i4")
        length = int(responses["length"][first])
        return sort_key(tokens[:length]), sort_key(tokens[length:])

    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        rows = order[start : start + count]
        place = sorted(range(count), key=[sortable(row) for row in rows].__getitem__)
        found[rows[place]] = np.arange(count)
    return found
