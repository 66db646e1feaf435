"""How far every side of a case is from the same arithmetic in fp64: the padded batch, full logits, the same weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from benchmarks import peer_classical
from benchmarks.cases import SIDES, Case
from benchmarks.measure import apart_by
from benchmarks.sides import Side


def errors(case: Case, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """(loss, gradient) of each side against the twin in fp64, relative; the gradient to its largest entry."""
    work = case.work(case.exact)
    true_loss, true_gradient = _computed(peer_classical.twin(work))
    found = {}
    for name in names:
        loss, gradient = _computed(SIDES[name](work))
        found[name] = abs(loss - true_loss) / abs(true_loss), apart_by(gradient, true_gradient)
    return found


def _computed(side: Side) -> tuple[float, list[Tensor]]:
    if side.prepare is not None:
        side.prepare()
    side.model.zero_grad(set_to_none=True)
    loss = float(side.step())
    return loss, [weight.grad.double() for weight in side.model.parameters()]
