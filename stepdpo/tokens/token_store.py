"""The token store: integers on disc, 52 bytes a pair in memory, a tree built whenever one is asked for.

    train.tokens    int32: for each pair the chosen sequence, then what the rejected one has of its own
    train.index     one INDEX_RECORD a pair

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
from stepdpo.tokens.token_tree import Ints, TokenSequence, TokenTree, build_pair_tree, build_tree

# 52 bytes an entry, so that the index of a million pairs is 52 MB: 32 bits for all but where a pair starts (a file may
# hold more than 2^31 tokens) and its confidence, which must come back as it was given.
INDEX_RECORD = np.dtype(
    [
        ("id", "<i4"),  # number of the pair in its data set; those of dropped pairs are absent
        ("start", "<i8"),  # its first token in the file
        ("chosen", "<i4"),  # length of the chosen sequence
        ("rejected", "<i4"),  # length of the rejected sequence; 0 without one
        ("shared", "<i4"),  # tokens that both begin with
        ("chosen_first", "<i4"),  # first scored token
        ("rejected_first", "<i4"),
        ("group", "<i4"),  # pairs of one problem have one number
        ("rank", "<i4"),  # place among the pairs of its problem, ordered by tokens
        ("checksum", "<u4"),  # CRC-32 of its tokens: quick enough for every read, and made to tell damage, not malice
        ("confidence", "<f8"),
    ]
)
WIDTH = 4
"""Bytes a token."""
Read = Callable[[int, int], bytes]
"""(first byte, how many) -> bytes of the tokens' file."""


class TokenStore(Mapping[int, TokenTree]):
    """Trees by the number of their pair, in the order of the numbers."""

    def __init__(self, entries: NDArray[Any], read: Read, name: str = "memory") -> None:
        columns = {column: np.ascontiguousarray(entries[column]) for column in INDEX_RECORD.names or ()}
        self.ids: Ints = columns.pop("id")
        self._columns, self._read, self._name = columns, read, name
        # Where no pair was dropped a number is its row, and nothing need be searched.
        self._dense = len(self.ids) > 0 and int(self.ids[-1]) == len(self.ids) - 1

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int | np.integer) and self._row(int(number)) is not None

    def __getitem__(self, number: int) -> TokenTree:
        chosen, *others = self.sequences(number)
        number, confidence = int(number), self.confidence(number)
        if not others:
            return build_tree([chosen], [number], [confidence])
        return build_pair_tree(chosen, others[0], int(self._columns["shared"][self._at(number)]), number, confidence)

    def sequences(self, number: int) -> list[TokenSequence]:
        """The chosen sequence, and the rejected one if there is one; owners are the sides."""
        row = self._at(number)
        column = self._columns
        chosen, rejected, shared = (int(column[name][row]) for name in ("chosen", "rejected", "shared"))
        raw = self._read(WIDTH * int(column["start"][row]), WIDTH * (chosen + max(0, rejected - shared)))
        if zlib.crc32(raw) != column["checksum"][row]:
            raise UserError(
                f"{self._name}: the tokens of pair {number} are damaged; delete this folder, then run again"
            )
        tokens = np.frombuffer(raw, "<i4")
        sequences = [TokenSequence(tokens[:chosen], int(column["chosen_first"][row]), 0)]
        if rejected:
            own = tokens if shared == chosen else np.concatenate([tokens[:shared], tokens[chosen:]])
            sequences.append(TokenSequence(own, int(column["rejected_first"][row]), 1))
        return sequences

    def confidence(self, number: int) -> float:
        return float(self._columns["confidence"][self._at(number)])

    def sizes(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Tokens of each tree, shared ones counted once; no tree is built."""
        chosen, rejected, shared = (self.column(name, numbers) for name in ("chosen", "rejected", "shared"))
        sizes: NDArray[np.int64] = (chosen + rejected - shared).astype(np.int64)
        return sizes

    def size(self, number: int) -> int:
        """Tokens of one tree."""
        return int(self.sizes([number])[0])

    def predictions(self, numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Distinct predictions of each tree: `len(tree.targets)`; no tree is built."""
        chosen, rejected, shared = (self.column(name, numbers) for name in ("chosen", "rejected", "shared"))
        first, second = (self.column(name, numbers) for name in ("chosen_first", "rejected_first"))
        # A shared token that both sides score is one prediction, not two.
        both = np.maximum(0, shared - np.maximum(first, second))
        alone = np.where(rejected > 0, rejected - second - both, 0)
        counts: NDArray[np.int64] = (chosen - first + alone).astype(np.int64)
        return counts

    def column(self, name: str, numbers: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """A column of the index for some pairs; KeyError for one that is not there."""
        wanted = np.asarray(numbers, np.int64)
        if self._dense:
            rows = wanted
            known = (wanted >= 0) & (wanted < len(self.ids))
        else:
            rows = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self.ids) - 1))
            known = self.ids[rows] == wanted if len(self.ids) else np.zeros(len(wanted), bool)
        if not known.all():
            raise KeyError(int(wanted[~known][0]))
        values: NDArray[Any] = self._columns[name][rows]
        return values

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
    entries = np.fromfile(folder / f"{name}.index", INDEX_RECORD)
    store = TokenStore(entries, lambda first, count: os.pread(handle, count, first), str(folder))
    weakref.finalize(store, os.close, handle)
    return store
