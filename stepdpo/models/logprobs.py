"""Hidden states and a head -> log-probabilities of the scored tokens, the KL to a reference, collision probabilities.

Only scored positions reach the head, in fp32 from the logits on. Distributions over the vocabulary exist for one
chunk of positions at a time; those the backward pass needs are kept where they fit, else computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepdpo.models.head import Head, as_autocast, log_softmax, slope, wide

CHUNK_BYTES = 64 * 2**20
"""Most memory that one chunk's distribution takes: with 150,000 words about a hundred positions, enough for a product
of matrices to be worth reading the head."""
KEEP_BYTES = 2**30
"""Most memory that kept distributions take under `auto` on a CPU, which holds everything else too; on a GPU a tenth of
its memory, most of which weights and activations want."""


class HeadMemory(Enum):
    """Whether distributions over the vocabulary wait in memory for the backward pass."""

    auto = "auto"
    """Kept when they fit (KEEP_BYTES), else computed again."""
    save = "save"
    recompute = "recompute"
    """A third more arithmetic in the head, and never more than a chunk of logits in memory."""


class TokenScores(NamedTuple):
    """Of T scored positions, in nats, at least fp32."""

    logps_T: Tensor
    """log softmax(logits)[target]."""
    kl_T: Tensor
    """KL(reference, policy) over the whole vocabulary; zero without a reference."""
    collision_T: Tensor | None = None
    """log of the sum of squared probabilities, without a gradient; None where nobody asks."""


class _TokenScores(torch.autograd.Function):
    """TokenScores, with the gradients of `logps_T` and `kl_T`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        low_TR: Tensor | None,
        up_VR: Tensor | None,
        target_T: Tensor,
        reference_hidden_TH: Tensor | None,
        reference_VH: Tensor | None,
        reference_low_TR: Tensor | None,
        reference_up_VR: Tensor | None,
        form: tuple[float, float | None],
        collision: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        head, reference = Head(weight_VH, up_VR, *form), _reference(reference_VH, reference_up_VR, form)
        total, vocabulary = len(target_T), len(weight_VH)
        logps_T = hidden_TH.new_zeros(total, dtype=wide(hidden_TH))
        kl_T, offset_T = torch.zeros_like(logps_T), torch.zeros_like(logps_T)
        collision_T = torch.empty_like(logps_T) if collision else None
        # Where distributions are kept there is one chunk, of all positions, and these are its tensors.
        kept = [logps_T.new_empty(total if keep else 0, vocabulary) for _ in range(2 if reference else 1)]
        for part in _parts(total, vocabulary, logps_T, keep):
            out = [buffer[part] if keep else None for buffer in kept]
            policy_CV, offset_T[part] = log_softmax(hidden_TH[part], _at(low_TR, part), head, target_T[part], out[0])
            logps_T[part] = policy_CV.gather(1, target_T[part, None]).squeeze(1)
            if reference and reference_hidden_TH is not None:
                low_CR = _at(reference_low_TR, part)
                log_CV, _ = log_softmax(reference_hidden_TH[part], low_CR, reference, target_T[part], out[1])
                kl_T[part] = _kl(log_CV, policy_CV)  # the reference first: its distribution weighs the differences
            if collision_T is not None:
                collision_T[part] = _collision(policy_CV)
        ctx.save_for_backward(
            hidden_TH, weight_VH, low_TR, up_VR, target_T, offset_T,
            reference_hidden_TH, reference_VH, reference_low_TR, reference_up_VR,
        )  # fmt: skip
        # Not by save_for_backward, which forbids what the backward pass does with them: change them in place.
        ctx.form, ctx.kept = form, kept if keep else None
        if collision_T is not None:
            ctx.mark_non_differentiable(collision_T)
        return logps_T, kl_T, collision_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """D logp / d logits = onehot - p and d KL / d logits = p - r, with p the policy and r the reference."""
        grad_logps_T, grad_kl_T, _ = gradients
        hidden_TH, weight_VH, low_TR, up_VR, target_T, offset_T, *of_reference = ctx.saved_tensors
        reference_hidden_TH, reference_VH, reference_low_TR, reference_up_VR = of_reference
        head, reference = Head(weight_VH, up_VR, *ctx.form), _reference(reference_VH, reference_up_VR, ctx.form)
        kept, ctx.kept = ctx.kept, None  # used up in place; a second backward pass computes them again
        sums = _Gradients(ctx.needs_input_grad, hidden_TH, head, low_TR)
        for part in _parts(len(target_T), len(weight_VH), offset_T, bool(kept)):
            if kept:
                policy_CV, probs_CV = kept[0], kept[-1]
            else:
                policy_CV, _ = log_softmax(hidden_TH[part], _at(low_TR, part), head, target_T[part])
            # Before exp_() overwrites the log-probabilities: with the offset added they are the logits, which the slope
            # of a cap depends on.
            slope_CV = slope(policy_CV, offset_T[part, None], ctx.form)
            # In place throughout: grad_CV is the largest tensor of a step, and a second one would double the peak.
            grad_CV = policy_CV.exp_()
            if reference and reference_hidden_TH is not None:
                if not kept:
                    low_CR = _at(reference_low_TR, part)
                    probs_CV = log_softmax(reference_hidden_TH[part], low_CR, reference, target_T[part])[0].exp_()
                # (g_kl - g_logp) p - g_kl r; the onehot follows below.
                grad_CV.mul_((grad_kl_T[part] - grad_logps_T[part])[:, None])
                grad_CV.addcmul_(probs_CV, -grad_kl_T[part, None])
            else:
                grad_CV.mul_(-grad_logps_T[part, None])
            grad_CV.scatter_add_(1, target_T[part, None], grad_logps_T[part, None])
            if slope_CV is not None:
                grad_CV.mul_(slope_CV)
            sums.add(part, grad_CV.to(hidden_TH.dtype))
        return (*sums.totals(), *[None] * 8)


class _Gradients:
    """Sums over chunks of what flows to the hidden states, the head, and its adapter."""

    def __init__(self, needed: tuple[bool, ...], hidden_TH: Tensor, head: Head, low_TR: Tensor | None) -> None:
        self.hidden_TH, self.head, self.low_TR = hidden_TH, head, low_TR
        self.grad_TH = torch.empty_like(hidden_TH)
        self.grad_TR = torch.empty_like(low_TR) if low_TR is not None else None
        self.grad_VH: Tensor | None = None
        self.grad_VR: Tensor | None = None
        self.needs_head, self.needs_up = needed[1], needed[3]

    def add(self, part: slice, grad_CV: Tensor) -> None:
        """`grad_CV`: gradient of the logits of a chunk."""
        torch.mm(grad_CV, self.head.weight_VH, out=self.grad_TH[part])
        if self.needs_head:
            self.grad_VH = _added(self.grad_VH, grad_CV, self.hidden_TH[part])
        if self.low_TR is not None and self.grad_TR is not None and self.head.up_VR is not None:
            torch.mm(grad_CV, self.head.up_VR, out=self.grad_TR[part])
            if self.needs_up:
                self.grad_VR = _added(self.grad_VR, grad_CV, self.low_TR[part])

    def totals(self) -> tuple[Tensor | None, ...]:
        kind = self.hidden_TH.dtype
        heads = [g.to(kind) if g is not None else None for g in (self.grad_VH, self.grad_VR)]
        return self.grad_TH, heads[0], self.grad_TR, heads[1]


def _added(sum_VX: Tensor | None, grad_CV: Tensor, input_CX: Tensor) -> Tensor:
    """The sum with grad^T input; the first term is the sum, later ones are added in fp32 or wider."""
    if sum_VX is None:  # often the only chunk, and then no zeros of the head's size are made
        return grad_CV.T @ input_CX
    sum_VX = sum_VX.to(wide(sum_VX))
    if sum_VX.dtype == grad_CV.dtype:
        return sum_VX.addmm_(grad_CV.T, input_CX)
    return sum_VX.add_(grad_CV.T @ input_CX)


def _reference(weight_VH: Tensor | None, up_VR: Tensor | None, form: tuple[float, float | None]) -> Head | None:
    return Head(weight_VH, up_VR, *form) if weight_VH is not None else None


def _at(tensor: Tensor | None, part: slice) -> Tensor | None:
    return tensor[part] if tensor is not None else None


def _kl(log_CV: Tensor, policy_CV: Tensor) -> Tensor:
    """KL(reference, policy) of each row. `log_CV`, the reference's log-probabilities, become probabilities in place."""
    # In parts of CHUNK_BYTES even where the distributions are kept whole: the difference is a tensor of its own.
    kl_C = torch.empty_like(log_CV[:, 0])
    for part in _parts(log_CV.shape[0], log_CV.shape[1], log_CV, False):
        ratio_CV = log_CV[part] - policy_CV[part]
        # From log-probabilities, never log(softmax): a gap of 200 nats would be 0 times minus infinity.
        kl_C[part] = torch.einsum("cv,cv->c", log_CV[part].exp_(), ratio_CV)
    return kl_C


def _collision(policy_CV: Tensor) -> Tensor:
    """Log of the sum of squared probabilities of each row; between -log V, for the uniform one, and 0."""
    # As _kl, in parts of CHUNK_BYTES. The sum is at least 1 / V: what underflows in it is nothing beside that.
    collision_C = torch.empty_like(policy_CV[:, 0])
    for part in _parts(policy_CV.shape[0], policy_CV.shape[1], policy_CV, False):
        probs_CV = policy_CV[part].exp()
        collision_C[part] = torch.einsum("cv,cv->c", probs_CV, probs_CV).log_()
    return collision_C


def _parts(total: int, vocabulary: int, like: Tensor, whole: bool) -> Iterator[slice]:
    """All positions at once, or equal parts whose logits fit into CHUNK_BYTES each."""
    count = 1 if whole else max(1, -(-total * vocabulary * like.element_size() // CHUNK_BYTES))
    step = max(1, -(-total // count))  # equal parts: the whole head would be read for a last few positions
    return (slice(at, min(at + step, total)) for at in range(0, total, step))


def _fits(needed: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return needed <= torch.cuda.get_device_properties(device).total_memory // 10
    return needed <= KEEP_BYTES


def token_scores(
    hidden_TH: Tensor,
    head: Head,
    target_T: Tensor,
    low_TR: Tensor | None = None,
    reference_hidden_TH: Tensor | None = None,
    reference_VH: Tensor | None = None,
    head_memory: HeadMemory = HeadMemory.auto,
    collision: bool = False,
    reference_low_TR: Tensor | None = None,
    reference_up_VR: Tensor | None = None,
) -> TokenScores:
    """Scores of T positions; `collision` asks for the log collision probability as well.

    An adapter on the reference's head comes as one on the policy's does: `reference_low_TR` is its first factor's work.

    `kl_T` is KL(reference, policy) over the whole vocabulary (arXiv 2404.11999, section 4: the reference comes
    first); the reference's head is scaled and capped as the policy's. Gradients flow to `hidden_TH`, `low_TR` and the
    head alone.
    """
    hidden_TH, weight_VH = as_autocast(hidden_TH), as_autocast(head.weight_VH)
    low_TR, up_VR, reference_hidden_TH, reference_VH = (
        as_autocast(t) if t is not None else None for t in (low_TR, head.up_VR, reference_hidden_TH, reference_VH)
    )
    reference_low_TR, reference_up_VR = (
        as_autocast(t) if t is not None else None for t in (reference_low_TR, reference_up_VR)
    )
    # A distribution of the policy at every position, and one of the reference where there is one.
    needed = (2 if reference_VH is not None else 1) * len(target_T) * len(weight_VH) * wide(hidden_TH).itemsize
    kept = head_memory is HeadMemory.save or (head_memory is HeadMemory.auto and _fits(needed, hidden_TH.device))
    form = (head.scale, head.cap)
    # Cast above and switched off here: autocast does not reach a custom Function's backward pass, which would else
    # multiply in another format than the forward pass did.
    with torch.autocast(hidden_TH.device.type, enabled=False):
        scores = _TokenScores.apply(  # type: ignore[no-untyped-call]
            hidden_TH, weight_VH, low_TR, up_VR, target_T, reference_hidden_TH, reference_VH, reference_low_TR,
            reference_up_VR, form, collision, kept and torch.is_grad_enabled(),
        )  # fmt: skip
    return TokenScores(*scores)
