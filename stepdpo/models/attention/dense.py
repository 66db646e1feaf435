"""Tree attention by one dense mask: slow, obvious, and what the other backends are compared with."""

from __future__ import annotations

from torch import Tensor

from stepdpo.models.attention import softmax
from stepdpo.models.attention.metadata import TreeMask


def attend(query: Tensor, key: Tensor, value: Tensor, tree: TreeMask, scale: float, softcap: float | None) -> Tensor:
    return softmax.attend(query, key, value, tree.dense_R1LL, scale, softcap)
