"""Who sees whom in a packed batch, in the form each attention backend wants; made once a batch, not once a layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from stepdpo.tokens.trie import Segment

BLOCK = 128
"""Positions a block of the block mask."""


@dataclass(frozen=True, eq=False)
class TreeMask:
    """The attention mask: position i of a row sees j iff `j <= i < ends[j]`; `segments` say the same span by span."""

    segments: tuple[Segment, ...]
    ends_RL: Tensor

    @cached_property
    def rows(self) -> list[list[Segment]]:
        """The segments of each row, in order."""
        rows: list[list[Segment]] = [[] for _ in range(len(self.ends_RL))]
        for segment in self.segments:
            rows[segment.row].append(segment)
        return rows

    @cached_property
    def dense_R1LL(self) -> Tensor:
        """The rule, written out."""
        at_L = torch.arange(self.ends_RL.shape[1], device=self.ends_RL.device)
        query_L1 = at_L[:, None]
        return ((at_L <= query_L1) & (query_L1 < self.ends_RL[:, None, :]))[:, None]

    @cached_property
    def blocks(self) -> BlockMask:
        """FlexAttention's mask, from two numbers a block of keys; no L x L tensor is made.

        A block of keys before the queries' own is seen by some of them iff one key ends after their first, and by
        all iff every key ends after their last. On the diagonal the rule is evaluated token by token.
        """
        ends_RL = self.ends_RL

        def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < ends_RL[row, key])

        length = ends_RL.shape[1]
        ends_RKB = _in_blocks(ends_RL)
        first_Q1 = torch.arange(0, length, BLOCK, device=ends_RL.device)[:, None]
        last_Q1 = (first_Q1 + BLOCK - 1).clamp(max=length - 1)
        # Blocks after the diagonal are seen by none. The diagonal itself is causal, so never seen whole, and always
        # listed: every position sees itself.
        before_QK = torch.ones(len(first_Q1), len(first_Q1), dtype=torch.bool, device=ends_RL.device).tril(-1)
        some_RQK = before_QK & (ends_RKB.amax(-1)[:, None] > first_Q1)
        all_RQK = before_QK & (ends_RKB.amin(-1)[:, None] > last_Q1)
        diagonal_QK = torch.eye(len(first_Q1), dtype=torch.bool, device=ends_RL.device)
        return BlockMask.from_kv_blocks(
            *_listed((some_RQK & ~all_RQK) | diagonal_QK),
            *_listed(all_RQK),
            BLOCK_SIZE=BLOCK,
            mask_mod=visible,
            seq_lengths=(length, length),
        )


def _in_blocks(ends_RL: Tensor) -> Tensor:
    """(rows, blocks, BLOCK); a short last block repeats its last number."""
    # Repeating the last number changes neither the least nor the greatest of its block.
    more = -ends_RL.shape[1] % BLOCK
    return torch.cat([ends_RL, ends_RL[:, -1:].expand(-1, more)], dim=1).view(len(ends_RL), -1, BLOCK)


def _listed(chosen_RQK: Tensor) -> tuple[Tensor, Tensor]:
    """(how many blocks of keys, which ones first) for each block of queries, with a dimension for heads."""
    # Stable, so that the chosen ones come first in their own order; the kernel reads only the first `count` of them.
    which_RQK = chosen_RQK.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return chosen_RQK.sum(-1, dtype=torch.int32)[:, None], which_RQK.to(torch.int32)[:, None]
