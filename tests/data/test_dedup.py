"""What has been met before, in little memory."""

from __future__ import annotations

from random import Random

from stepdpo.data.dedup import FIRST, HashSet


def test_it_says_what_a_set_says() -> None:
    rng, seen, known = Random(0), HashSet(), set[str]()
    for _ in range(6000):
        text = f"question {rng.randrange(4000)}"
        assert (text in seen) == (text in known)
        assert seen.add(text) == (text not in known)
        known.add(text)
    assert len(seen) == len(known) > FIRST


def test_it_keeps_no_texts() -> None:
    """At most half of the slots are taken, and they double: 16 to 32 bytes a text."""
    seen = HashSet()
    for number in range(5000):
        seen.add(f"{number}" * 1000)
    assert 16 * 5000 <= seen.slots.itemsize * len(seen.slots) <= 32 * 5000
