"""One way of counting floating-point operations for every side: those that PyTorch's dispatcher really issued.

A multiplication and an addition count as two. Counted are matrix products and attention; element-wise work is not.
Attention: 4 x head size operations for every head and every (query, key) the kernel visits forward, 10 backward; a
causal call visits the lower triangle, a masked one the whole rectangle. PyTorch's own counter has no rule for the
CPU's flash attention and misses products into given outputs, takes causal attention for a full one, and follows
modules at a cost; hence this one. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.shapes import Shape
from stepdpo.tokens.token_tree import TokenTree

aten = torch.ops.aten


def counted(action: Callable[[], Any]) -> tuple[int, Any]:
    """(operations issued while the action ran, what it returned)."""
    with _Counter() as counter:
        result = action()
    return counter.total, result


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of everything that is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func.overloadpacket)
        # By overload packet: in-place and `out` forms do the same arithmetic as the plain one.
        if rule is not None:
            self.total += rule(*args, **kwargs)
        return func(*args, **kwargs)


def floor(shape: Shape, trees: Sequence[TokenTree], has_kl: bool) -> int:
    """What must be done: 6 N T + 3.5 forward attention + 6 H V S, and 2 H V S more for a KL.

    N weights of the backbone, T distinct tokens, S scored tokens; a token attends to its own sequence alone.
    """
    tokens = sum(len(tree) for tree in trees)
    scored = sum(len(tree.targets) for tree in trees)
    visible = sum(int(tree.positions.sum()) + len(tree) for tree in trees)
    attention = 4 * shape.layers * shape.hidden * visible
    head = 2 * shape.hidden * shape.vocab * scored
    # The head: one product forward and two backward; a KL needs the reference's logits as well. Attention: two forward,
    # five backward, as its weights are computed again.
    return 6 * shape.backbone_weights * tokens + 7 * attention // 2 + (4 if has_kl else 3) * head


def _visits(query: Any, key: Any, causal: bool) -> int:
    """(query, key) pairs, over all rows and heads."""
    rows, heads, queries, _ = query.shape
    keys = key.shape[2]
    each = sum(min(i + 1, keys) for i in range(queries)) if causal else queries * keys
    return int(rows * heads * each)


def _attention(query: Any, key: Any, value: Any, dropout: float = 0.0, causal: bool = False, **rest: Any) -> int:
    causal = rest.get("is_causal", causal)
    return _visits(query, key, causal) * 2 * int(query.shape[3] + value.shape[3])


def _attention_backward(
    gradient: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    normaliser: Any,
    dropout: float,
    causal: bool,
    **rest: Any,
) -> int:
    return _visits(query, key, causal) * 2 * int(3 * query.shape[3] + 2 * value.shape[3])


def _product(one: Any, other: Any, *rest: Any, **named: Any) -> int:
    return int(2 * one.shape[0] * one.shape[1] * other.shape[1])


def _product_into(into: Any, one: Any, other: Any, *rest: Any, **named: Any) -> int:
    return _product(one, other)


def _batched(one: Any, other: Any, *rest: Any, **named: Any) -> int:
    return int(one.shape[0]) * _product(one[0], other[0])


def _batched_into(into: Any, one: Any, other: Any, *rest: Any, **named: Any) -> int:
    return _batched(one, other)


RULES: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.mm: _product,
    aten.addmm: _product_into,
    aten.addmm_: _product_into,
    aten.bmm: _batched,
    aten.baddbmm: _batched_into,
    aten.baddbmm_: _batched_into,
}
