"""Each architecture of our recipes: packed trees against the stock model, sequence by sequence and in the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import families
from torch import Tensor

from stepdpo.models.attention.registry import Attention, register, tree_inputs
from stepdpo.models.compatibility import refuse_sliding_window
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.token_tree import TokenSequence, build_tree


def batch() -> TreeBatch:
    """A search tree of four sequences and a pair, the longest sequence as long as the families' sliding window."""
    generator = np.random.default_rng(0)
    trunk, chain = (generator.integers(3, 64, size).astype(np.int32) for size in (12, 20))
    own = [generator.integers(3, 64, size).astype(np.int32) for size in (3, 7, 2, 9, 5, 4)]
    search = [
        np.concatenate([trunk, chain]),
        np.concatenate([trunk, chain[:11], own[0]]),
        np.concatenate([trunk, chain[:11], own[1]]),
        np.concatenate([trunk, own[2]]),
    ]
    pair = [np.concatenate([own[3], own[4]]), np.concatenate([own[3], own[5]])]
    assert max(map(len, search)) == 32
    return collate(
        [
            build_tree(
                [TokenSequence(p, 2, owner) for owner, p in enumerate(sequences)],
                range(len(sequences) // 2),
                [1.0] * len(sequences),
            )
            for sequences in (search, pair)
        ]
    )


BATCH = batch()


def sequences() -> list[list[int]]:
    """The positions of each leaf's sequence."""
    ends = BATCH.ends_RL[0].tolist()
    depth = BATCH.position_ids_RL[0].tolist()
    leaves = [i for i in range(len(ends)) if i + 1 == len(ends) or depth[i + 1] != depth[i] + 1]
    return [[k for k in range(leaf + 1) if leaf < ends[k]] for leaf in leaves]


def backbone(model: Any, **inputs: Any) -> Tensor:
    hidden: Tensor = getattr(model, model.base_model_prefix)(**inputs).last_hidden_state
    return hidden


def direction(hidden: Tensor) -> Tensor:
    return torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1), dtype=hidden.dtype)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_paths_and_gradients_are_the_stock_models(name: str) -> None:
    """Each sequence alone through stock attention gives hidden states, and a weighted sum over sequences the gradient.

    Eager attention has the caps that others lack, and takes its softmax in single precision. A sequence alone knows
    its own positions, windows and rotary bases, and no tree.
    """
    capped = name == "gemma2"
    off = 1e-5 if capped else 1e-7
    ours = families.model(name, register()).double()
    theirs = families.model(name, "eager" if capped else "sdpa").double()
    refuse_sliding_window(ours.config, longest=32)
    hidden = backbone(ours, input_ids=BATCH.input_ids_RL, position_ids=BATCH.position_ids_RL, **tree_inputs(BATCH))[0]
    assert len(sequences()) == 6
    loss, expected = hidden.new_zeros(()), hidden.new_zeros(())
    for weight, sequence in enumerate(sequences(), start=1):
        alone = backbone(theirs, input_ids=BATCH.input_ids_RL[:, sequence], use_cache=False)[0]
        torch.testing.assert_close(hidden[sequence], alone, rtol=off, atol=off)
        loss = loss + weight * (direction(alone) * hidden[sequence]).sum()
        expected = expected + weight * (direction(alone) * alone).sum()
    loss.backward()
    expected.backward()
    for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is None:  # a head that is not tied
            assert mine.grad is None
            continue
        error = (mine.grad - other.grad).norm() / (other.grad.norm() + 1e-3)
        assert error < 100 * off, f"{key}: {error}"


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "llama3"])
def test_the_dense_twin_too(name: str) -> None:
    one, other = (families.model(name, register(kind)).double() for kind in (Attention.runs, Attention.dense))
    inputs = {"input_ids": BATCH.input_ids_RL, "position_ids": BATCH.position_ids_RL} | tree_inputs(BATCH)
    torch.testing.assert_close(backbone(one, **inputs), backbone(other, **inputs), rtol=1e-7, atol=1e-7)


def test_the_peculiarities_matter() -> None:
    """Without them the numbers are others, so the tests above would notice."""
    inputs = {"input_ids": BATCH.input_ids_RL, "position_ids": BATCH.position_ids_RL} | tree_inputs(BATCH)
    for name, plain in (
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma2", {"query_pre_attn_scalar": 8}),
        ("gemma3", {"query_pre_attn_scalar": 8}),
        ("gemma3", {"rope_parameters": dict.fromkeys(families.TWO_BASES, families.TWO_BASES["full_attention"])}),
        ("llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
        ("granite", {"attention_multiplier": 0.1}),
    ):
        with torch.no_grad():
            ours, others = (backbone(families.model(name, register(), **more), **inputs) for more in ({}, plain))
        assert (ours - others).abs().max() > 1e-2, (name, plain)
