"""Backbone, gather and head in one module, so that an engine may wrap, shard and checkpoint it as one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from stepdpo.batch import SIDES, TreeBatch
from stepdpo.logps import sum_by_owner, token_scores
from stepdpo.model.attention import fitted, tree_inputs
from stepdpo.model.support import refuse_unsupported

Gather = Callable[[list[nn.Parameter]], AbstractContextManager[Any]]


class Scorer(nn.Module):
    """TreeBatch -> summed log-probabilities (and KL) of every response.

    With `keep_reference_head` a frozen copy of the head is kept, which together with cached hidden states of the
    reference gives the full-vocabulary KL without a second model.
    """

    reference_head_VH: Tensor | None

    def __init__(self, model: Any, keep_reference_head: bool, gather: Gather) -> None:
        super().__init__()
        self.model = model
        head = model.get_output_embeddings()
        refuse_unsupported(model)
        kept = None
        if keep_reference_head:
            with gather([head.weight]):
                kept = head.weight.detach().clone()
        self.register_buffer("reference_head_VH", kept, persistent=False)

    def forward(self, batch: TreeBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(logps_B2, kl_B2, tokens_B2, hidden_TH): sums over scored tokens, and the final hidden states there.

        kl is zero unless the batch carries the reference's hidden states. hidden_TH is detached.
        """
        backbone = getattr(self.model, self.model.base_model_prefix)
        batch = fitted(batch, self.model)
        hidden_RLH = backbone(
            input_ids=batch.input_ids_RL, position_ids=batch.position_ids_RL, **tree_inputs(batch)
        ).last_hidden_state
        hidden_TH = hidden_RLH.reshape(-1, hidden_RLH.shape[-1])[batch.source_T]
        head = self.model.get_output_embeddings()
        reference_hidden = batch.reference_hidden_TH
        logps_T, kl_T = token_scores(
            hidden_TH,
            head.weight,
            batch.target_T,
            reference_hidden.to(hidden_TH.dtype) if reference_hidden is not None else None,
            self.reference_head_VH if reference_hidden is not None else None,
        )
        responses = SIDES * batch.pairs
        summed = [
            sum_by_owner(values_T, batch.term_E, batch.owner_E, responses).view(-1, SIDES)
            for values_T in (logps_T, kl_T, torch.ones_like(logps_T))
        ]
        return summed[0], summed[1], summed[2], hidden_TH.detach()
