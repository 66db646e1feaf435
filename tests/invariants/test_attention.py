"""Tree attention against stock attention with a dense mask, on trees of pairs and on search trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny
from support.twins import Gradient, close, gradient_of
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.attention import cpu_block
from stepdpo.models.attention.registry import Attention, fitted, padded, register, tree_inputs
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_tree
from stepdpo.tokens.trie import Segment
from stepdpo.training.engine.settings import recompute_activations


def tree(*sequences: str) -> TokenTree:
    """Letters are tokens; every second sequence is the rejected side of a pair."""
    return build_tree(
        [TokenSequence(np.array([ord(c) - 90 for c in p], np.int32), 2, owner) for owner, p in enumerate(sequences)],
        pair_ids=range((len(sequences) + 1) // 2),
        confidences=[1.0] * ((len(sequences) + 1) // 2),
    )


PAIR = tree("abcdef", "abcxyz")
SEARCH = tree("abcdefgh", "abcdefxy", "abcdpq", "abcdpr", "abst", "abcdefgz", "abcdpqrstu", "absu")
"""Four pairs of one problem: forks below forks below forks, a sequence that is the beginning of another."""
SINGLE = tree("hijklm")
APART = tree("abc", "xbc")
"""Two sequences without a common beginning."""
LONG = tree("ab" * 80 + "c", "ab" * 80 + "de" * 40, "ab" * 80 + "dede" + "f" * 100, "ab" * 30 + "g" * 70)
"""Longer than a block of queries, with forks inside blocks and branches of more than one."""
BATCHES = {
    "pair": [PAIR],
    "search": [SEARCH],
    "single": [SINGLE],
    "apart": [APART],
    "many": [SINGLE, SEARCH, PAIR, APART, PAIR],
    "long": [PAIR, LONG, SINGLE],
}


def dense(batch: TreeBatch) -> Tensor:
    """The rule, written out: i sees j iff j <= i < ends[j]; 0 there and -inf elsewhere."""
    rows, length = batch.input_ids_RL.shape
    mask = torch.full((rows, 1, length, length), float("-inf"), dtype=torch.float64)
    for row in range(rows):
        for j, end in enumerate(batch.ends_RL[row].tolist()):
            mask[row, 0, j:end, j] = 0
    return mask


def ours(model: Any, batch: TreeBatch) -> Tensor:
    """Final hidden states."""
    hidden: Tensor = model.model(
        input_ids=batch.input_ids_RL, position_ids=batch.position_ids_RL, **tree_inputs(batch)
    ).last_hidden_state
    return hidden


def stock(model: Any, batch: TreeBatch) -> Tensor:
    mask = dense(batch).to(model.dtype)
    hidden: Tensor = model.model(
        input_ids=batch.input_ids_RL, position_ids=batch.position_ids_RL, attention_mask=mask, use_cache=False
    ).last_hidden_state
    return hidden


def backward(model: Any, hidden: Tensor) -> Gradient:
    """The gradient of a sum of hidden states with random weights."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(hidden.shape, generator=generator, dtype=torch.float64)
    (hidden * direction.to(hidden.dtype)).sum().backward()
    return gradient_of(model)


def kernels(monkeypatch: pytest.MonkeyPatch, which: str) -> str:
    """`blocks` is the CPU's own way; `plain` what `attention=runs` does on other devices."""
    if which == "plain":
        monkeypatch.setattr(cpu_block, "supports", lambda query, value: False)
    return register(Attention.dense if which == "dense" else Attention.runs)


@pytest.mark.parametrize(("name", "off"), [("eager", 1e-5), ("sdpa", 1e-7)])
@pytest.mark.parametrize("which", ["blocks", "plain", "dense"])
@pytest.mark.parametrize("trees", BATCHES.values(), ids=BATCHES)
def test_every_backend_is_the_dense_mask(
    trees: Sequence[TokenTree], which: str, name: str, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager attention takes its softmax in single precision, whatever the model's."""
    batch = collate(trees)
    one, other = tiny.model(kernels(monkeypatch, which)).double(), tiny.model(name).double()
    hidden, expected = ours(one, batch), stock(other, batch)
    torch.testing.assert_close(hidden, expected, rtol=off, atol=off)
    close(backward(one, hidden), backward(other, expected), rtol=10 * off)


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_any_number_of_threads(threads: int) -> None:
    """More threads than key heads: fewer heads are laid one after another."""
    batch = collate([PAIR, LONG])
    one, other = tiny.model(register()).double(), tiny.model("sdpa").double()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = backward(one, ours(one, batch))
    finally:
        torch.set_num_threads(before)
    close(got, backward(other, stock(other, batch)), rtol=1e-6)


def test_each_path_is_as_if_it_stood_alone() -> None:
    """Every response of the search tree, run by itself through the stock model, has the same hidden states."""
    batch = collate([PAIR, SEARCH])
    one, other = tiny.model(register()).double(), tiny.model("sdpa").double()
    with torch.no_grad():
        hidden = ours(one, batch)[0]
        ends = batch.ends_RL[0].tolist()
        for last in range(len(ends)):
            sequence = [k for k in range(last + 1) if last < ends[k]]
            alone = other.model(input_ids=batch.input_ids_RL[:, sequence], use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(hidden[sequence], alone, rtol=1e-7, atol=1e-7)


def test_several_rows() -> None:
    """Two rows at once are the two alone."""
    alone = [padded(collate([SEARCH, PAIR]), 64), padded(collate([APART, SEARCH, SINGLE]), 64)]
    assert {b.input_ids_RL.shape for b in alone} == {(1, 64)}
    both = dataclasses.replace(
        alone[0],
        **{
            name: torch.cat([getattr(b, name) for b in alone])
            for name in ("input_ids_RL", "position_ids_RL", "ends_RL")
        },
        segments=tuple(Segment(row, r.start, r.stop, r.ancestors) for row, b in enumerate(alone) for r in b.segments),
    )
    other = tiny.model("sdpa").double()
    expected = stock(other, both)
    torch.testing.assert_close(torch.cat([stock(other, b) for b in alone]), expected)
    wanted = backward(other, expected)
    for kind in (Attention.runs, Attention.dense):
        model = tiny.model(register(kind)).double()
        hidden = ours(model, both)
        torch.testing.assert_close(hidden, expected, rtol=1e-7, atol=1e-7)
        close(backward(model, hidden), wanted, rtol=1e-6)


# Padding


@pytest.mark.parametrize("multiple", [1, 50, 64, 128])
def test_padding_changes_nothing(multiple: int) -> None:
    batch = collate([SEARCH, LONG])
    model = tiny.model(register()).double()
    with torch.no_grad():
        more = padded(batch, multiple)
        assert more.input_ids_RL.shape[1] % multiple == 0
        assert more.input_ids_RL.shape[1] - batch.input_ids_RL.shape[1] < multiple
        plain, filled = (ours(model, b).flatten(0, 1)[b.source_T] for b in (batch, more))
    torch.testing.assert_close(filled, plain)


def test_padding_finds_the_same_places_in_every_row() -> None:
    """Row 1, position 2 of rows of 5 is flat index 7; of rows of 8 it is 10."""
    batch = collate([PAIR])
    rows = dataclasses.replace(
        batch,
        input_ids_RL=torch.zeros(2, 5, dtype=torch.int64),
        position_ids_RL=torch.zeros(2, 5, dtype=torch.int64),
        ends_RL=torch.full((2, 5), 5),
        segments=(Segment(0, 0, 5), Segment(1, 0, 5)),
        source_T=torch.tensor([4, 7]),
    )
    more = padded(rows, 8)
    assert more.source_T.tolist() == [4, 10]
    assert more.ends_RL.tolist() == [[5] * 5 + [8] * 3] * 2
    assert more.segments[2:] == (Segment(0, 5, 8), Segment(1, 5, 8))


def test_only_flex_asks_for_padding() -> None:
    batch = collate([PAIR])
    assert fitted(batch, tiny.model(register())) is batch
    assert fitted(batch, tiny.model(register(Attention.flex))).input_ids_RL.shape == (1, 128)


# Number formats and recomputation


def difference(one: Gradient, other: Gradient) -> float:
    return float(torch.stack([(one[n].double() - other[n].double()).norm() for n in one]).norm())


def test_bfloat16_is_as_near_as_its_twin() -> None:
    """Nothing is lost but what the format itself loses."""
    batch = collate([LONG, SEARCH])
    exact = backward(m := tiny.model("sdpa").double(), stock(m, batch))
    half = [tiny.model(name).bfloat16() for name in ("sdpa", register())]
    twin, got = backward(half[0], stock(half[0], batch)), backward(half[1], ours(half[1], batch))
    assert 0 < difference(got, exact) < 1.25 * difference(twin, exact)


def test_autocast_with_norms_of_queries() -> None:
    """The norm's weight is fp32, so queries and keys come in another format than values."""
    from support import families

    batch = collate([SEARCH, PAIR])
    results = []
    for name, forward in (("eager", stock), (register(), ours)):
        model = families.model("qwen3", name)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = forward(model, batch)
        results.append(backward(model, hidden.float()))
    exact = backward(m := families.model("qwen3", "eager"), stock(m, batch))
    assert 0 < difference(results[1], exact) < 1.25 * difference(results[0], exact)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [Attention.runs, Attention.dense])
def test_recomputed_activations(kind: Attention, reentrant: bool) -> None:
    batch = collate([SEARCH, LONG])
    kept, again = (tiny.model(register(kind)) for _ in range(2))
    enable = getattr(again, "activation_checkpointing_enable", None)
    if enable is None:
        again.gradient_checkpointing_enable({"use_reentrant": reentrant})
    else:
        enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    again.enable_input_require_grads()
    close(backward(again, ours(again, batch)), backward(kept, ours(kept, batch)), rtol=1e-7)


# Without its tree


@pytest.mark.parametrize("kind", [Attention.runs, Attention.flex, Attention.dense])
def test_a_model_called_without_its_tree_fails_loudly(kind: Attention) -> None:
    with pytest.raises(RuntimeError, match="without its tree"):
        tiny.model(register(kind))(input_ids=torch.tensor([[1, 2, 3]]))


def test_it_fails_under_gradient_checkpointing_too() -> None:
    model = tiny.model(register())
    recompute_activations(model)
    with pytest.raises(RuntimeError, match="without its tree"):
        model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def test_dropout_is_refused() -> None:
    model = tiny.model(register())
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    with pytest.raises(RuntimeError, match="no dropout"):
        ours(model, collate([PAIR]))


def test_auto_follows_the_device() -> None:
    assert register(Attention.auto, torch.device("cpu")) == register(Attention.auto) == register(Attention.runs)
    assert register(Attention.auto, torch.device("cuda", 0)) == register(Attention.flex)


def test_flex_is_refused_where_it_cannot_train() -> None:
    with pytest.raises(UserError, match=r"attention=flex needs a CUDA device.*attention=runs"):
        register(Attention.flex, torch.device("cpu"))
