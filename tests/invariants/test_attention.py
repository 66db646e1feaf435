"""Tree attention against stock attention with a dense mask, on trees of pairs and on search trees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from twins import close, gradient_of

from stepdpo.batch import TreeBatch
from stepdpo.collate import collate
from stepdpo.engine.settings import recompute_activations
from stepdpo.model.attention import register, tree_inputs
from stepdpo.trees import Path, TokenTree, grow


def tree(*paths: str) -> TokenTree:
    """Letters are tokens; every second path is the rejected side of a pair."""
    return grow(
        [Path(np.array([ord(c) - 90 for c in p], np.int32), 2, owner) for owner, p in enumerate(paths)],
        pair_ids=range((len(paths) + 1) // 2),
        confidences=[1.0] * ((len(paths) + 1) // 2),
    )


PAIR = tree("abcdef", "abcxyz")
SEARCH = tree("abcdefgh", "abcdefxy", "abcdpq", "abcdpr", "abst", "abcdefgz", "abcdpqrstu", "absu")
"""Four pairs of one problem: forks below forks below forks, a path that is the beginning of another."""
SINGLE = tree("hijklm")
APART = tree("abc", "xbc")
"""Two paths without a common beginning."""
BATCHES = {
    "pair": [PAIR],
    "search": [SEARCH],
    "single": [SINGLE],
    "apart": [APART],
    "many": [SINGLE, SEARCH, PAIR, APART, PAIR],
}


def dense(batch: TreeBatch) -> Tensor:
    """The rule, written out: i sees j iff j <= i < ends[j]; 0 there and -inf elsewhere."""
    length = batch.input_ids_RL.shape[1]
    mask = torch.full((1, 1, length, length), float("-inf"), dtype=torch.float64)
    for i in range(length):
        for j in range(length):
            if j <= i < batch.ends_RL[0, j]:
                mask[0, 0, i, j] = 0
    return mask


@pytest.mark.parametrize(("stock", "off"), [("eager", 1e-5), ("sdpa", 1e-7)])
@pytest.mark.parametrize("trees", BATCHES.values(), ids=BATCHES)
def test_runs_are_the_dense_mask(trees: Sequence[TokenTree], stock: str, off: float) -> None:
    """Eager attention takes its softmax in single precision, whatever the model's."""
    batch = collate(trees)
    ours, theirs = tiny.model(register()).double(), tiny.model(stock).double()
    common = {"input_ids": batch.input_ids_RL, "position_ids": batch.position_ids_RL}
    hidden = ours.model(**common, **tree_inputs(batch)).last_hidden_state
    expected = theirs.model(**common, attention_mask=dense(batch), use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=off, atol=off)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (hidden * direction).sum().backward()
    (expected * direction).sum().backward()
    close(gradient_of(ours), gradient_of(theirs), rtol=10 * off)


def test_each_path_is_as_if_it_stood_alone() -> None:
    """Every response of the search tree, run by itself through the stock model, has the same hidden states."""
    batch = collate([PAIR, SEARCH])
    ours, theirs = tiny.model(register()).double(), tiny.model("sdpa").double()
    with torch.no_grad():
        hidden = ours.model(
            input_ids=batch.input_ids_RL,
            position_ids=batch.position_ids_RL,
            **tree_inputs(batch),
        ).last_hidden_state[0]
        ends = batch.ends_RL[0].tolist()
        for last in range(len(ends)):
            path = [k for k in range(last + 1) if last < ends[k]]
            alone = theirs.model(input_ids=batch.input_ids_RL[:, path], use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(hidden[path], alone, rtol=1e-7, atol=1e-7)


def test_a_model_called_without_its_tree_fails_loudly() -> None:
    with pytest.raises(RuntimeError, match="without its tree"):
        tiny.model(register())(input_ids=torch.tensor([[1, 2, 3]]))


def test_it_fails_under_gradient_checkpointing_too() -> None:
    model = tiny.model(register())
    recompute_activations(model)
    with pytest.raises(RuntimeError, match="without its tree"):
        model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
