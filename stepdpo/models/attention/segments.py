"""Tree attention by runs: a row is cut into stretches, and each attends to its ancestors and, causally, to itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from stepdpo.models.attention import cpu_block as flash
from stepdpo.models.attention import softmax
from stepdpo.models.attention.metadata import Tree
from stepdpo.tokens.token_tree import TokenRun


def attend(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, softcap: float | None) -> Tensor:
    """The CPU's kernel in blocks where it can be used; else one plain attention a run."""
    fast = softcap is None and flash.suits(query, value)
    outputs = []
    for number, runs in enumerate(tree.rows):
        q, k, v = (x[number : number + 1] for x in (query, key, value))
        outputs.append(flash.attend(q, k, v, runs, scale) if fast else _row(q, k, v, runs, scale, softcap))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _row(
    query: Tensor, key: Tensor, value: Tensor, runs: Sequence[TokenRun], scale: float, softcap: float | None
) -> Tensor:
    """One row. Split, not sliced: the backward pass of a slice would fill a whole row with zeros each time."""
    sizes = [run.stop - run.start for run in runs]
    keys, values = torch.split(key, sizes, dim=2), torch.split(value, sizes, dim=2)
    number = {run.start: i for i, run in enumerate(runs)}
    outputs = []
    for i, (run, own) in enumerate(zip(runs, torch.split(query, sizes, dim=2), strict=True)):
        seen = [(number[start], stop - start) for start, stop in run.ancestors]
        key_run = torch.cat([*(keys[n][:, :, :size] for n, size in seen), keys[i]], dim=2) if seen else keys[i]
        value_run = torch.cat([*(values[n][:, :, :size] for n, size in seen), values[i]], dim=2) if seen else values[i]
        mask = _bottom_right_causal(own.shape[2], key_run.shape[2], query.device) if seen else None
        outputs.append(softmax.attend(own, key_run, value_run, mask, scale, softcap))
    return torch.cat(outputs, dim=2)


@lru_cache(maxsize=256)
def _bottom_right_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
