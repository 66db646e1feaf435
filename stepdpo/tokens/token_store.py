"""The token store: integers on disc, 60 bytes a pair in memory, a tree built whenever one is asked for.

An example is what a loss looks at as one: a pair, a single response, or all responses to one problem.

    train.tokens     int32: for each example its first sequence, then what each later one has of its own
    train.index      one EXAMPLE an example
    train.responses  one RESPONSE a response
    train.steps      for losses that look at steps (step_file)

Tokens are read by plain reads. A memory map would count every page it ever touched as memory of this process.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepdpo.core.errors import UserError
from stepdpo.tokens.batch import SIDES
from stepdpo.tokens.step_file import StepFile
from stepdpo.tokens.step_spans import Ints
from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_pair_tree, build_tree

# 60 bytes a pair, so that the index of a million is 60 MB: 32 bits for all but where an example starts (a file may hold
# more than 2^31 tokens) and its confidence, which must come back as it was given.
EXAMPLE = np.dtype(
    [
        ("id", "<i4"),  # number of the example in its data set; those that were dropped are absent
        ("start", "<i8"),  # its first token in the file
        ("first", "<i4"),  # its first response
        ("group", "<i4"),  # examples of one problem have one number
        ("rank", "<i4"),  # place among the examples of its problem, ordered by tokens
        ("checksum", "<u4"),  # CRC-32 of its tokens: quick enough for every read, and made to tell damage, not malice
        ("confidence", "<f8"),
    ]
)
RESPONSE = np.dtype(
    [
        ("length", "<i4"),
        ("shared", "<i4"),  # tokens it begins with like the response before it; 0 for the first of an example
        ("scored", "<i4"),  # first scored token
    ]
)
WIDTH = 4
"""Bytes a token."""
Read = Callable[[int, int], bytes]
"""(first byte, how many) -> bytes of the tokens' file."""


class TokenStore(Mapping[int, TokenTree]):
    """Trees by the number of their example, in the order of the numbers."""

    def __init__(
        self, examples: NDArray[Any], responses: NDArray[Any], read: Read, name: str = "memory",
        steps: StepFile | None = None,
    ) -> None:  # fmt: skip
        columns = {column: np.ascontiguousarray(examples[column]) for column in EXAMPLE.names or ()}
        self.ids: Ints = columns.pop("id")
        self._columns, self._read, self._name = columns, read, name
        self._responses = {column: np.ascontiguousarray(responses[column]) for column in RESPONSE.names or ()}
        self._steps = steps
        # Where no pair was dropped a number is its row, and nothing need be searched.
        self._dense = len(self.ids) > 0 and int(self.ids[-1]) == len(self.ids) - 1

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int | np.integer) and self._row(int(number)) is not None

    def __getitem__(self, number: int) -> TokenTree:
        sequences = self.sequences(number)
        number, confidence = int(number), self.confidence(number)
        if len(sequences) != SIDES:
            return build_tree(sequences, [number], [confidence])
        shared = int(self._responses["shared"][self._responses_of(self._at(number)).start + 1])
        return build_pair_tree(sequences[0], sequences[1], shared, number, confidence)

    def sequences(self, number: int) -> list[TokenSequence]:
        """The responses of an example, in a pair the chosen one first; owners count from 0."""
        row = self._at(number)
        responses = self._responses_of(row)
        lengths, shared, scored = (self._responses[name][responses].tolist() for name in ("length", "shared", "scored"))
        total = sum(lengths) - sum(shared)
        raw = self._read(WIDTH * int(self._columns["start"][row]), WIDTH * total)
        if zlib.crc32(raw) != self._columns["checksum"][row]:
            raise UserError(
                f"{self._name}: the tokens of pair {number} are damaged; delete this folder, then run again"
            )
        tokens = np.frombuffer(raw, "<i4")
        sequences: list[TokenSequence] = []
        at = 0
        for owner, (length, alike, first) in enumerate(zip(lengths, shared, scored, strict=True)):
            own = tokens[at : at + length - alike]
            at += length - alike
            whole = np.concatenate([sequences[-1].tokens[:alike], own]) if alike else own
            steps = self._steps.of(responses.start + owner) if self._steps else None
            sequences.append(TokenSequence(whole, first, owner, steps))
        return sequences

    def confidence(self, number: int) -> float:
        return float(self._columns["confidence"][self._at(number)])

    def sizes(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Tokens of each tree, shared ones counted once; no tree is built."""
        length, shared = self._responses["length"], self._responses["shared"]
        return self._summed(numbers, lambda rows: length[rows] - shared[rows])

    def size(self, number: int) -> int:
        """Tokens of one tree."""
        return int(self.sizes([number])[0])

    def predictions(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Distinct predictions of each tree: `len(tree.targets)`; a tree is built only of three responses or more."""
        length, shared, scored = (self._responses[name] for name in ("length", "shared", "scored"))

        def own(rows: NDArray[Any]) -> NDArray[Any]:
            # A shared token that both sides score is one prediction, not two.
            both = np.maximum(0, shared[rows] - np.maximum(scored[rows], scored[rows - 1]))
            counts: NDArray[Any] = length[rows] - scored[rows] - both
            return counts

        counts = self._summed(numbers, own)
        for place in np.flatnonzero(self.responses(numbers) > SIDES).tolist():
            counts[place] = len(self[int(numbers[place])].targets)
        return counts

    def responses(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """How many responses each example has."""
        return self._summed(numbers, lambda rows: np.ones(len(rows), np.int64))

    def column(self, name: str, numbers: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """A column of the index for some examples; KeyError for one that is not there."""
        values: NDArray[Any] = self._columns[name][self._rows(numbers)]
        return values

    def _summed(
        self, numbers: Sequence[int] | NDArray[Any], value: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> NDArray[np.int64]:
        """Sum of a value (of some rows of the responses) over the responses of each example."""
        rows = self._rows(numbers)
        first = self._columns["first"][rows].astype(np.int64)
        after = np.minimum(rows + 1, len(self.ids) - 1)
        stop = np.where(rows + 1 < len(self.ids), self._columns["first"][after], len(self._responses["length"]))
        sums = np.zeros(len(rows), np.int64)
        for later in range(int((stop - first).max(initial=0))):
            has = first + later < stop
            sums[has] += value(first[has] + later)
        return sums

    def _rows(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Where examples stand in the index; KeyError for one that is not there."""
        wanted = np.asarray(numbers, np.int64)
        if self._dense:
            rows = wanted
            known = (wanted >= 0) & (wanted < len(self.ids))
        else:
            rows = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self.ids) - 1))
            known = self.ids[rows] == wanted if len(self.ids) else np.zeros(len(wanted), bool)
        if not known.all():
            raise KeyError(int(wanted[~known][0]))
        return rows

    def _responses_of(self, row: int) -> slice:
        first = self._columns["first"]
        stop = int(first[row + 1]) if row + 1 < len(first) else len(self._responses["length"])
        return slice(int(first[row]), stop)

    def _at(self, number: int) -> int:
        row = self._row(number)
        if row is None:
            raise KeyError(number)
        return row

    def _row(self, number: int) -> int | None:
        row = number if self._dense else int(np.searchsorted(self.ids, number))
        return row if 0 <= row < len(self.ids) and self.ids[row] == number else None


def open_store(folder: Path, name: str) -> TokenStore:
    """The store that was written as `name` into a folder (by token_store_writer).

    Its file stays open as long as it is in use.
    """
    # One open file, read by offset (pread): threads need no lock, and an entry that is replaced or removed meanwhile
    # stays readable.
    handle = os.open(folder / f"{name}.tokens", os.O_RDONLY)
    examples = np.fromfile(folder / f"{name}.index", EXAMPLE)
    responses = np.fromfile(folder / f"{name}.responses", RESPONSE)
    steps = StepFile.read(folder / f"{name}.steps")
    store = TokenStore(examples, responses, lambda first, count: os.pread(handle, count, first), str(folder), steps)
    weakref.finalize(store, os.close, handle)
    return store
