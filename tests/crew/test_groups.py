"""Which tasks are worked on together: nothing is left out, and no worker waits while another has two groups left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from stepdpo.crew.groups import groups


@dataclass(frozen=True)
class Named:
    id: str


def sizes(total: int, live: int, workers: int, known: bool = True) -> list[int]:
    tasks = [Named(str(i)) for i in range(total)]
    found = list(groups(iter(tasks), live, workers, total if known else None))
    assert [task for group in found for task in group] == tasks
    return [len(group) for group in found]


@pytest.mark.parametrize("total", [1, 7, 100, 500, 1319, 3000])
@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("live", [1, 3, 256])
def test_every_worker_has_equally_many_groups(total: int, workers: int, live: int) -> None:
    found = sizes(total, live, workers)
    assert max(found) <= live
    # Turns in which each worker takes a group: no more than it takes at all, in that nothing is larger than `live`.
    turns = -(-len(found) // workers)
    assert turns == -(-total // (live * workers))
    # The longest turn counts: together they are no longer than an equal share, and what rounding up adds to each turn.
    assert turns * max(found) < total / workers + turns


def test_gsm8k_on_eight_gpus() -> None:
    assert sizes(1319, 256, 8) == [165] * 7 + [164]
    assert sizes(1319, 256, 1) == [256] * 5 + [39]


def test_one_worker_or_an_unknown_number_is_given_as_many_as_are_live() -> None:
    assert sizes(10, 4, 1) == [4, 4, 2]
    assert sizes(10, 4, 8, known=False) == [4, 4, 2]


def test_tasks_are_read_as_they_are_needed() -> None:
    read = []

    def endless() -> Iterator[Named]:
        for i in range(10**9):
            read.append(i)
            yield Named(str(i))

    assert len(next(groups(endless(), 4, 2))) == 4
    assert len(read) == 4
