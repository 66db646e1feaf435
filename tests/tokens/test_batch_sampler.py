"""Which pairs make up which optimizer step: every pair once an epoch, in an order that only seed and epoch decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.tokens import batch_sampler
from stepdpo.tokens.batch_sampler import BatchSampler, BatchSize, Partial, micro_batches, order, steps_per_epoch
from stepdpo.tokens.token_store import TokenStore
from stepdpo.tokens.token_tree import TokenSequence
from tests.support.stores import in_memory


def forest(lengths: Sequence[int], ids: Iterable[int] | None = None) -> TokenStore:
    """One tree a length; by default with odd numbers, as if every second pair had been dropped."""
    numbers = list(ids) if ids is not None else [2 * n + 1 for n in range(len(lengths))]
    sequences = [[TokenSequence(np.arange(length, dtype=np.int32), 1, 0)] for length in lengths]
    return in_memory([(n, p, 1.0, n) for n, p in zip(numbers, sequences, strict=True)])


def sampler(count: int, size: int, seed: int = 0) -> BatchSampler:
    return BatchSampler(forest([2] * count, range(count)), seed, BatchSize(pairs=size))


def test_the_order_is_seed_and_epoch() -> None:
    ids = range(50)
    assert order(ids, seed=3, epoch=1).tolist() == order(ids, seed=3, epoch=1).tolist()
    assert len({tuple(order(ids, seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9
    assert order(ids, seed=1, epoch=11).tolist() != order(ids, seed=11, epoch=1).tolist()


@given(st.sets(st.integers(0, 1000), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 3))
def test_each_pair_once_an_epoch(ids: set[int], size: int, epoch: int) -> None:
    """Also those of the last, smaller step."""
    listed = sorted(ids)
    per_epoch = steps_per_epoch(len(listed), size)
    pairs_of = BatchSampler(forest([2] * len(ids), listed), 7, BatchSize(pairs=size))
    parts = [pairs_of(epoch * per_epoch + n) for n in range(per_epoch)]
    assert sorted(i for part in parts for i in part) == listed
    assert all(len(part) == size for part in parts[:-1])
    assert 0 < len(parts[-1]) <= size


def test_ten_pairs_in_steps_of_four() -> None:
    """4 + 4 + 2, then another epoch in another order."""
    pairs_of = sampler(10, 4)
    assert [len(pairs_of(number)) for number in range(6)] == [4, 4, 2, 4, 4, 2]
    first, second = ([i for n in range(3) for i in pairs_of(3 * e + n)] for e in (0, 1))
    assert first != second


def test_a_step_does_not_depend_on_those_before() -> None:
    """A resumed run lands in the middle of an epoch."""
    whole = sampler(100, 7)
    inorder = [whole(number) for number in range(30)]
    assert [sampler(100, 7)(number) for number in range(30)] == inorder
    assert [whole(number) for number in reversed(range(30))] == inorder[::-1]


def test_an_epoch_is_ordered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first step of an epoch the others are sliced from what is there."""
    drawn: list[int] = []
    numbers = batch_sampler._random_numbers
    monkeypatch.setattr(batch_sampler, "_random_numbers", lambda *a: drawn.append(a[1]) or numbers(*a))
    pairs_of = sampler(1000, 10)
    for number in range(250):
        pairs_of(number)
    assert drawn == [0, 1, 2]


def test_every_order_is_as_likely() -> None:
    """3 pairs have 6 orders; of 3,000 epochs each has 500 of them, give or take 5 standard deviations of 20.4."""
    counts = Counter(tuple(order(range(3), 0, epoch).tolist()) for epoch in range(3000))
    assert len(counts) == 6
    assert all(abs(count - 500) < 5 * (3000 * 1 / 6 * 5 / 6) ** 0.5 for count in counts.values())


def test_step_dpo_10k_has_85_steps_an_epoch() -> None:
    """84 x 128 pairs and one of 43; Step-DPO's own trainer made 84."""
    assert steps_per_epoch(10_795, 128) == 85
    assert len(sampler(10_795, 128)(84)) == 10_795 - 84 * 128 == 43


def test_the_official_epoch_leaves_out_what_fills_no_update() -> None:
    """8 x 84 = 672 updates as published, in place of 680; other pairs are left out in the next epoch."""
    assert steps_per_epoch(10_795, 128, Partial.official) == 84
    trees = sampler(25, 10).trees
    pairs_of = BatchSampler(trees, 0, BatchSize(10, partial=Partial.official))
    epochs = [sorted(pairs_of(2 * epoch) + pairs_of(2 * epoch + 1)) for epoch in range(2)]
    assert [len(set(pairs)) for pairs in epochs] == [20, 20]
    assert epochs[0] != epochs[1]
    assert steps_per_epoch(5, 10, Partial.official) == 1  # no epoch is without an update
    assert len(BatchSampler(sampler(5, 10).trees, 0, BatchSize(10, partial=Partial.official))(3)) == 5


@pytest.mark.parametrize("settings", [{"pairs": 0}, {"tokens": 0}])
def test_sizes_must_be_positive(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BatchSize(**settings)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=20), st.integers(1, 80), st.integers(1, 4))
def test_micro_batches_are_shared_out(lengths: list[int], tokens: int, world_size: int) -> None:
    """As many passes on every process, each pair once in all, at most `tokens` unless one pair alone is longer."""
    trees = forest(lengths)
    inputs = [list(micro_batches(trees, sorted(trees), tokens, rank, world_size)) for rank in range(world_size)]
    assert len({len(mine) for mine in inputs}) == 1
    counted = [p.batch for mine in inputs for p in mine if p.weight == 1]
    assert sorted(i for batch in counted for i in batch.pair_ids) == sorted(trees)
    assert all(batch.input_ids_RL.numel() <= tokens or batch.pairs == 1 for batch in counted)


def test_a_process_without_work_stands_in_with_the_shortest_tree() -> None:
    trees = forest([30, 5, 20])
    inputs = [list(micro_batches(trees, sorted(trees), 100, rank, 4)) for rank in range(4)]
    assert [[(p.weight, p.batch.input_ids_RL.numel()) for p in mine] for mine in inputs] == [
        [(1.0, 30)],
        [(1.0, 20)],
        [(1.0, 5)],
        [(0.0, 5)],
    ]
