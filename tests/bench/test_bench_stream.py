"""Many pairs: what is held in memory does not grow with their tokens, nor from update to update."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path as FilePath

import numpy as np
import pytest

from stepdpo.tokens.batch_sampler import BatchSampler, BatchSize, Group, all_micro_batches, micro_batches
from stepdpo.tokens.token_store import TokenStore, open_store
from stepdpo.tokens.token_store_writer import store_writer
from stepdpo.tokens.token_tree import TokenSequence


def rows(count: int, length: int) -> Iterator[tuple[int, list[TokenSequence], float, int]]:
    """Pairs of two to a problem, `length` tokens of shared beginning and a few of each side."""
    rng = np.random.default_rng(0)
    for number in range(count):
        base = rng.integers(0, 500, length, dtype=np.int32)
        sides = [np.append(base, rng.integers(0, 500, n + 2)).astype(np.int32) for n in rng.integers(0, 20, 2)]
        yield number, [TokenSequence(tokens, length, side) for side, tokens in enumerate(sides)], 1.0, number // 2


def store(folder: FilePath, count: int, length: int) -> TokenStore:
    with store_writer(folder, "train") as writer:
        for row in rows(count, length):
            writer.add(*row)
        writer.finish()
    return open_store(folder, "train")


def test_an_open_store_holds_its_index_and_no_tokens(tmp_path: FilePath) -> None:
    """Ten times as many tokens, the same memory: at most 60 bytes for each of 3,000 pairs, and some objects."""
    held = []
    for length in (20, 200):
        (tmp_path / str(length)).mkdir()
        store(tmp_path / str(length), 3000, length)
        gc.collect()
        tracemalloc.start()
        found = open_store(tmp_path / str(length), "train")
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(found) == 3000
    assert max(held) < 3000 * 60 + 20_000
    assert abs(held[0] - held[1]) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("group", Group)
@pytest.mark.exhaustive
def test_updates_leave_nothing_behind(tmp_path: FilePath, group: Group) -> None:
    """Of 50,000 pairs and 300 updates, the bytes held after the 150th and the last are the same."""
    trees = store(tmp_path, 50_000, 300)
    size = BatchSize(pairs=128, tokens=8192, group=group)
    updates = BatchSampler(trees, 0, size)
    held = {}
    tracemalloc.start()
    for number in range(300):
        for piece in micro_batches(trees, updates(number), size.tokens, 0, 1, group):
            assert piece.batch.pairs
        if number in (150, 299):
            gc.collect()
            held[number] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert abs(held[299] - held[150]) < 20_000


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_pass_over_all_pairs_plans_window_by_window(tmp_path: FilePath) -> None:
    """The most that is ever held is of one window of 512 pairs, and each pair comes once on one of two processes."""
    trees = store(tmp_path, 20_000, 100)
    tracemalloc.start()
    seen: list[int] = []
    passes = []
    for rank in (0, 1):
        count = 0
        for piece in all_micro_batches(trees, 4096, rank, 2, window=512):
            seen += piece.batch.pair_ids if piece.weight else ()
            count += 1
        passes.append(count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(seen) == list(trees)
    assert passes[0] == passes[1]
    assert peak < 8 * 2**20
