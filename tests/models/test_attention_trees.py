"""Attention alone, on random trees: every backend against the rule written out, forward and backward."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from stepdpo.models.attention import cpu_block, dense, flex, segments
from stepdpo.models.attention.metadata import BLOCK, TreeMask
from stepdpo.models.attention.registry import padded
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.token_tree import TokenSequence, build_tree


def random_batch(seed: int, longest: int, leaves: int, trees: int = 1) -> TreeBatch:
    """Search trees whose every new sequence leaves an earlier one somewhere."""
    generator = np.random.default_rng(seed)

    def tokens() -> np.ndarray:
        return generator.integers(0, 64, int(generator.integers(1, longest))).astype(np.int32)

    built = []
    for _ in range(trees):
        sequences = [np.concatenate([tokens(), tokens()])]
        for _ in range(leaves - 1):
            earlier = sequences[generator.integers(len(sequences))]
            sequences.append(np.concatenate([earlier[: generator.integers(1, len(earlier) + 1)], tokens()]))
        built.append(
            build_tree([TokenSequence(p, 1, i) for i, p in enumerate(sequences)], range(leaves), [1.0] * leaves)
        )
    return collate(built)


def heads(length: int, groups: int, share: int, size: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """(query, key, value), laid out in memory as a model's are."""
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(1, length, count, size, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_()
        for count in (groups * share, groups, groups)
    ]


def tree_of(batch: TreeBatch) -> TreeMask:
    return TreeMask(batch.segments, batch.ends_RL)


def written_out(query: Tensor, key: Tensor, value: Tensor, batch: TreeBatch, scale: float) -> Tensor:
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
    hidden = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool)
    for j, end in enumerate(batch.ends_RL[0].tolist()):
        hidden[j:end, j] = False
    logits = (scale * query @ key.transpose(2, 3)).masked_fill(hidden, float("-inf"))
    return logits.softmax(-1) @ value


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    longest=st.sampled_from([4, 40, 150]),
    leaves=st.integers(1, 6),
    groups=st.integers(1, 3),
    share=st.integers(1, 4),
)
def test_blocks_are_the_rule(seed: int, longest: int, leaves: int, groups: int, share: int) -> None:
    batch = random_batch(seed, longest, leaves, trees=2)
    inputs = heads(batch.input_ids_RL.shape[1], groups, share, size=8)
    expected = written_out(*inputs, batch, 0.3)
    for attend in (segments.attend, dense.attend):
        output = attend(*inputs, tree_of(batch), 0.3, None)
        torch.testing.assert_close(output, expected)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=output.dtype)
        for mine, other in zip(
            torch.autograd.grad((output * weights).sum(), inputs),
            torch.autograd.grad((expected * weights).sum(), inputs, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, other)


def test_a_sequence_longer_than_the_first_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_block, "WIDTH", 128)
    batch = random_batch(0, longest=400, leaves=3)
    assert batch.position_ids_RL.max() > 300
    inputs = heads(batch.input_ids_RL.shape[1], 1, 2, size=8)
    torch.testing.assert_close(segments.attend(*inputs, tree_of(batch), 0.3, None), written_out(*inputs, batch, 0.3))


def test_values_of_another_size() -> None:
    """Multi-head latent attention has them; the kernel does not."""
    batch = random_batch(1, longest=20, leaves=4)
    query, key, _ = heads(batch.input_ids_RL.shape[1], 2, 1, size=8)
    value = torch.randn(1, 2, query.shape[2], 6, dtype=torch.float64)
    torch.testing.assert_close(
        segments.attend(query, key, value, tree_of(batch), 0.3, None), written_out(query, key, value, batch, 0.3)
    )


@pytest.mark.parametrize(
    ("groups", "share", "threads", "laid"),
    [(2, 4, 1, 4), (2, 4, 2, 4), (2, 4, 3, 2), (2, 4, 8, 1), (2, 4, 64, 1), (1, 6, 2, 3), (4, 7, 2, 7), (3, 1, 8, 1)],
)
def test_threads_that_all_have_heads(groups: int, share: int, threads: int, laid: int) -> None:
    """As many heads one after another as leave work for each thread: 8 heads, 3 threads, two by two makes four."""
    layout = cpu_block._heads(groups * share, groups, threads)
    assert (layout.groups, layout.splits * layout.folded, layout.folded) == (groups, share, laid)


# FlexAttention's mask


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("multiple", [1, BLOCK])
def test_the_block_mask(seed: int, multiple: int) -> None:
    """A block is listed iff some query of it sees some key, and as a full one iff all see all."""
    batch = padded(random_batch(seed, longest=300, leaves=5, trees=2), multiple)
    tree = tree_of(batch)
    length = batch.input_ids_RL.shape[1]
    wanted = tree.dense_R1LL[0, 0]
    mask = tree.blocks
    assert mask.shape == (1, 1, length, length)
    listed = {
        full: {
            (row, int(column))
            for row, count in enumerate(counts[0, 0].tolist())
            for column in indices[0, 0, row, :count]
        }
        for full, counts, indices in (
            (False, mask.kv_num_blocks, mask.kv_indices),
            (True, mask.full_kv_num_blocks, mask.full_kv_indices),
        )
    }
    for row in range(-(-length // BLOCK)):
        for column in range(-(-length // BLOCK)):
            seen = wanted[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            whole = bool(seen.all()) and row != column
            assert ((row, column) in listed[True]) == whole
            assert ((row, column) in listed[False]) == (bool(seen.any()) and not whole)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_flex_forward(softcap: float | None) -> None:
    """On a CPU it has no backward pass; tests/test_gpu.py has the gradient."""
    batch = random_batch(3, longest=150, leaves=5)
    tree = tree_of(batch)
    with torch.no_grad():
        inputs = [x.detach() for x in heads(batch.input_ids_RL.shape[1], 2, 3, size=16)]
        torch.testing.assert_close(flex.attend(*inputs, tree, 0.3, softcap), dense.attend(*inputs, tree, 0.3, softcap))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.exhaustive
def test_compiled_flex_reads_the_blocks_and_compiles_twice_at_most() -> None:
    """The compiled form skips what is not listed. A second length makes lengths dynamic, further ones cost nothing."""
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention)
    for seed, longest in ((0, 100), (1, 200), (2, 300), (3, 150), (4, 400)):
        batch = padded(random_batch(seed, longest=longest, leaves=5), BLOCK)
        tree = tree_of(batch)
        with torch.no_grad():
            inputs = [x.detach() for x in heads(batch.input_ids_RL.shape[1], 2, 2, size=16, dtype=torch.float32)]
            got = compiled(*inputs, block_mask=tree.blocks, scale=0.3, enable_gqa=True)
            torch.testing.assert_close(got, dense.attend(*inputs, tree, 0.3, None), rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
