"""The papers' way, from their formulas: one padded forward of [chosen; rejected], full logits, a resident reference.

DPO: Rafailov et al. 2023 (arXiv 2305.18290), concatenated forward. TDPO2: Zeng et al. 2024 (arXiv 2404.11999), with
the sequential KL over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.rows import Row
from benchmarks.shapes import build, move
from benchmarks.sides import ALPHA, BETA, Side, Work


def classical(work: Work) -> Side:
    """Policy and reference, both in memory, both run at every step."""
    return _side("classical", work, *_models(work))


def twin(work: Work) -> Side:
    """The same from the same weights in fp64: what both sides of a case should have come to."""
    policy, reference = _models(work)
    return _side("twin", work, policy.double(), reference.double())


def _models(work: Work) -> tuple[Any, Any]:
    policy, reference = (build(work.shape, dtype=work.dtype, device=work.device) for _ in range(2))
    move(policy)
    return policy, reference.requires_grad_(False)


def _side(name: str, work: Work, policy: Any, reference: Any) -> Side:
    batch = tuple(part.to(work.device) for part in padded(work.rows))
    loss_of = tdpo2_loss if work.loss == "tdpo2" else dpo_loss

    return Side(name, lambda: loss_of(policy, reference, *batch), None, policy)


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, attention, scored), each (2 * pairs, longest): chosen rows, then rejected rows, padded at the end."""
    sides = [(row.prompt, row.chosen) for row in rows] + [(row.prompt, row.rejected) for row in rows]
    longest = max(len(prompt) + len(side) for prompt, side in sides)
    ids = torch.zeros(len(sides), longest, dtype=torch.long)
    attention, scored = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for number, (prompt, side) in enumerate(sides):
        end = len(prompt) + len(side)
        ids[number, :end] = torch.tensor(prompt + side)
        attention[number, :end] = 1
        scored[number, len(prompt) : end] = True
    return ids, attention, scored


def dpo_loss(policy: Any, reference: Any, ids: Tensor, attention: Tensor, scored: Tensor) -> Tensor:
    """-log sigmoid(beta (policy's log-ratio of the sides - the reference's)), mean over pairs."""
    logps = _summed(_token_logps(_logits(policy, ids, attention), ids), scored)
    with torch.no_grad():
        reference_logps = _summed(_token_logps(_logits(reference, ids, attention), ids), scored)
    chosen, rejected = (logps - reference_logps).chunk(2)
    return -F.logsigmoid(BETA * (chosen - rejected)).mean()


def tdpo2_loss(policy: Any, reference: Any, ids: Tensor, attention: Tensor, scored: Tensor) -> Tensor:
    """-log sigmoid(beta (z - alpha (K_rejected - stop_gradient(K_chosen)))), K the sequential KL(reference, policy)."""
    logits = _logits(policy, ids, attention)
    with torch.no_grad():
        reference_logits = _logits(reference, ids, attention)
    vocab_logps = logits[:, :-1].log_softmax(-1)
    reference_ps = reference_logits[:, :-1].softmax(-1)
    reference_vocab_logps = reference_ps.log()
    kl = (reference_ps * (reference_vocab_logps - vocab_logps)).sum(-1)
    targets = ids[:, 1:, None]
    ratios = (vocab_logps.gather(2, targets) - reference_vocab_logps.gather(2, targets)).squeeze(2)
    chosen, rejected = _summed(ratios, scored).chunk(2)
    chosen_kl, rejected_kl = _summed(kl, scored).chunk(2)
    return -F.logsigmoid(BETA * (chosen - rejected - ALPHA * (rejected_kl - chosen_kl.detach()))).mean()


def _logits(model: Any, ids: Tensor, attention: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    # In fp32 at least, as the papers' code has it; the twin in fp64 stays in fp64.
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _token_logps(logits: Tensor, ids: Tensor) -> Tensor:
    return logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)


def _summed(values: Tensor, scored: Tensor) -> Tensor:
    return (values * scored[:, 1:]).sum(-1)
