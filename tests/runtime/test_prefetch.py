"""What is made in the background is what would have been made in the foreground, errors included."""

from __future__ import annotations

import threading

import pytest

from stepdpo.runtime.prefetch import Prefetcher


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    made = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            made.set()
        return number * number

    with Prefetcher(make, 3) as items:
        assert items.take(0) == 0
        assert made.wait(60)
        assert [items.take(1), items.take(2)] == [1, 4]


def test_nothing_is_made_beyond_the_end_or_twice() -> None:
    made: list[int] = []
    with Prefetcher(made.append, 7) as items:
        for number in (3, 4, 5, 6):
            items.take(number)
    assert made == [3, 4, 5, 6]


def test_any_order_will_do() -> None:
    with Prefetcher(lambda number: -number, 100) as items:
        assert [items.take(n) for n in (5, 6, 2, 2, 99)] == [-5, -6, -2, -2, -99]


def test_an_error_comes_when_it_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("pair 2")
        return number

    with Prefetcher(make, 4) as items:
        assert [items.take(0), items.take(1)] == [0, 1]
        with pytest.raises(ValueError, match="pair 2"):
            items.take(2)
        assert items.take(3) == 3


def test_leaving_ends_the_thread() -> None:
    with Prefetcher(lambda number: number, 5) as items:
        items.take(0)
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
