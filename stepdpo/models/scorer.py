"""Backbone, gather and head in one module, so that an engine may wrap, shard and checkpoint it as one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stepdpo.models.adapter_layers import head_parts
from stepdpo.models.attention.registry import fitted, tree_inputs
from stepdpo.models.compatibility import refuse_unsupported
from stepdpo.models.head import Head
from stepdpo.models.logprobs import HeadMemory, TokenScores, token_scores
from stepdpo.tokens.batch import TreeBatch, sum_by_owner

Gather = Callable[[list[nn.Parameter]], AbstractContextManager[Any]]
"""Makes partitioned parameters whole inside a `with` block."""


class Scores(NamedTuple):
    """What one forward pass says of a batch; a tuple, since DeepSpeed finds the tensors of nothing else."""

    logps_R: Tensor
    """Log-probability of each response, in nats: a sum over its scored tokens, in fp64."""
    kl_R: Tensor
    """Summed KL(reference, policy); zero unless the batch carries the reference's hidden states."""
    tokens_R: Tensor
    """How many tokens are scored."""
    hidden_TH: Tensor
    """The final hidden states that predict the scored tokens; detached."""
    logps_T: Tensor | None = None
    """Log-probability of each scored token, where the batch has steps."""
    collision_R: Tensor | None = None
    """Summed log collision probability (`TokenScores`), without a gradient; None where the loss does not ask."""
    values_S: Tensor | None = None
    """What the value head says at the last token of each step, where there is a head; not yet squashed."""


class Scorer(nn.Module):
    """TreeBatch -> summed log-probabilities (and KL) of every response.

    With `keep_reference_head` the head as it is now is kept, which together with hidden states of the reference
    gives the full-vocabulary KL without a second model. A head that is frozen serves both, and is not copied; what an
    adapter on it has learnt already is.
    Where the reference is not what the policy is now, its head is given as `reference_head_VH`.
    `collision` asks for collision probabilities besides, a `value_head` says a number a step.
    """

    reference_head_VH: Tensor | None
    reference_down_RH: Tensor | None
    reference_up_VR: Tensor | None

    def __init__(
        self, model: Any, keep_reference_head: bool, gather: Gather, head_memory: HeadMemory = HeadMemory.auto,
        reference_head_VH: Tensor | None = None, collision: bool = False, value_head: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.value_head = value_head
        self.model, self.head_memory, self.collision = model, head_memory, collision
        refuse_unsupported(model)
        self.scale, self.cap = logit_form(model.config)
        kept = reference_head_VH
        # A trained head moves away from the reference's, and ZeRO may have split it over the processes: hence `gather`.
        if kept is None and keep_reference_head and head_parts(model.get_output_embeddings())[0].requires_grad:
            kept = head_of(model, gather)
        self.register_buffer("reference_head_VH", kept, persistent=False)
        _, down_RH, up_VR, _ = head_parts(model.get_output_embeddings())
        # An adapter that starts as nothing is not copied: the reference's head has none.
        known = keep_reference_head and kept is None and up_VR is not None and bool(up_VR.any())
        for name, part in (("reference_down_RH", down_RH), ("reference_up_VR", up_VR)):
            copy = part.detach().clone() if known and part is not None else None
            self.register_buffer(name, copy, persistent=False)

    def forward(self, batch: TreeBatch) -> Scores:
        """Sums over the scored tokens of each response, and the final hidden states there."""
        hidden_PH, batch = self._hidden(batch)
        hidden_TH = hidden_PH[batch.source_T]
        logps_T, kl_T, collision_T = self._token_scores(hidden_TH, batch)
        responses = sum(batch.responses)
        # Sums in fp64 (sum_by_owner): a loss is a small difference of sums of hundreds of nats.
        summed = [
            sum_by_owner(values_T, batch.term_E, batch.owner_E, responses)
            for values_T in (logps_T, kl_T, torch.ones_like(logps_T))
        ]
        tokenwise_T = logps_T if batch.steps is not None else None
        collision_R = (
            sum_by_owner(collision_T, batch.term_E, batch.owner_E, responses) if collision_T is not None else None
        )
        values_S = self.value_head(hidden_PH[batch.steps.end_S]) if self.value_head and batch.steps else None
        return Scores(summed[0], summed[1], summed[2], hidden_TH.detach(), tokenwise_T, collision_R, values_S)

    def step_hidden(self, batch: TreeBatch) -> Tensor:
        """The final hidden state at the last token of each step: (S, H). No output head is computed."""
        assert batch.steps is not None
        return self._hidden(batch)[0][batch.steps.end_S]

    def _hidden(self, batch: TreeBatch) -> tuple[Tensor, TreeBatch]:
        """The final hidden states of all positions, and the batch as the attention wants it."""
        # The backbone alone: the model's own forward pass would put the head on every position of every row.
        backbone = getattr(self.model, self.model.base_model_prefix)
        batch = fitted(batch, self.model)
        hidden_RLH = backbone(
            input_ids=batch.input_ids_RL, position_ids=batch.position_ids_RL, **tree_inputs(batch)
        ).last_hidden_state
        return hidden_RLH.reshape(-1, hidden_RLH.shape[-1]), batch

    def _token_scores(self, hidden_TH: Tensor, batch: TreeBatch) -> TokenScores:
        weight_VH, down_RH, up_VR, scaling = head_parts(self.model.get_output_embeddings())
        # The adapter's first factor here, by autograd; logprobs.py takes low_TR as one more input of the head.
        low_TR = scaling * (hidden_TH @ down_RH.T) if down_RH is not None else None
        reference_TH = reference_VH = reference_low_TR = None
        if batch.reference_hidden_TH is not None:
            reference_TH = batch.reference_hidden_TH.to(hidden_TH.dtype)
            # A frozen head is the reference's too, so the policy's own serves and is not copied.
            reference_VH = self.reference_head_VH if self.reference_head_VH is not None else weight_VH.detach()
            if self.reference_down_RH is not None:
                reference_low_TR = (scaling * (reference_TH @ self.reference_down_RH.T)).detach()
        head = Head(weight_VH, up_VR, self.scale, self.cap)
        return token_scores(
            hidden_TH, head, batch.target_T, low_TR, reference_TH, reference_VH, self.head_memory, self.collision,
            reference_low_TR, self.reference_up_VR if reference_low_TR is not None else None,
        )  # fmt: skip


def head_of(model: Any, gather: Gather) -> Tensor:
    """A copy of a model's output head, without an adapter."""
    weight_VH = head_parts(model.get_output_embeddings())[0]
    with gather([weight_VH]):
        return weight_VH.detach().clone()


def logit_form(config: Any) -> tuple[float, float | None]:
    """(scale, cap) of a model's logits: Cohere multiplies them, Granite divides them, Gemma 2 caps them."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return scale, float(cap) if cap else None
