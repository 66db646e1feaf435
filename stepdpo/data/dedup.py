"""A set of hashes: which texts have been met before, in little memory however many they are."""

from __future__ import annotations

import hashlib
from array import array

FIRST = 1024
"""Slots to begin with; a power of two, so that a hash finds its slot by its lowest bits."""


class HashSet:
    """An open-addressing table that keeps 64 bits of a hash of each text: 16 to 32 bytes for it, whatever its length.

    A text is taken for another one with a probability of n / 2^64 after n texts.
    """

    def __init__(self) -> None:
        self.slots = array("Q", bytes(8 * FIRST))
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __contains__(self, text: str) -> bool:
        return bool(self.slots[_place(self.slots, _digest(text))])

    def add(self, text: str) -> bool:
        """Whether it is new."""
        digest = _digest(text)
        place = _place(self.slots, digest)
        if self.slots[place]:
            return False
        self.slots[place] = digest
        self.count += 1
        if 2 * self.count > len(self.slots):  # half full: beyond that, searches for a free slot grow long
            self.slots = _roomier(self.slots)
        return True


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1  # 0 marks a free slot


def _place(slots: array[int], digest: int) -> int:
    """Where the digest is, or the free slot where it belongs (linear probing); 0 marks a free one."""
    last = len(slots) - 1
    place = digest & last
    while slots[place] not in (0, digest):
        place = (place + 1) & last
    return place


def _roomier(slots: array[int]) -> array[int]:
    larger = array("Q", bytes(2 * 8 * len(slots)))
    for digest in slots:
        if digest:
            larger[_place(larger, digest)] = digest
    return larger
