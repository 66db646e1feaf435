"""What has been met before, in little memory."""

from __future__ import annotations

from random import Random

from stepdpo.data.dedup import FIRST, HashSet


def test_it_says_what_a_set_says() -> None:
    rng, hashes, known = Random(0), HashSet(), set[str]()
    for _ in range(6000):
        text = f"question {rng.randrange(4000)}"
        assert (text in hashes) == (text in known)
        assert hashes.add(text) == (text not in known)
        known.add(text)
    assert len(hashes) == len(known) > FIRST


def test_it_keeps_no_texts() -> None:
    """At most half of the slots are taken, and they double: 16 to 32 bytes a text."""
    hashes = HashSet()
    for number in range(5000):
        hashes.add(f"{number}" * 1000)
    assert 16 * 5000 <= hashes.slots.itemsize * len(hashes.slots) <= 32 * 5000
