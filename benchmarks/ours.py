"""stepdpo's side: token trees, tree attention, the head on scored tokens, the reference from its cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import Row
from benchmarks.shapes import build, move
from benchmarks.sides import ALPHA, BETA, Side, Work
from stepdpo.algo.dpo import DPO
from stepdpo.algo.tdpo import TDPO
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.loss_inputs import pair_scores
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.pair_scores import PairScores
from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_tree


def sequences(row: Row, pair: int = 0) -> list[TokenSequence]:
    """Both sides of a row, scored from the end of the prompt on."""
    sides = (row.chosen, row.rejected)
    return [
        TokenSequence(np.asarray(row.prompt + side, np.int32), len(row.prompt), 2 * pair + number)
        for number, side in enumerate(sides)
    ]


def apart(rows: Sequence[Row]) -> list[TokenTree]:
    """A tree for every pair."""
    return [build_tree(sequences(row), [number], [1.0]) for number, row in enumerate(rows)]


def together(rows: Sequence[Row]) -> list[TokenTree]:
    """One tree for all pairs."""
    members = [sequence for number, row in enumerate(rows) for sequence in sequences(row, number)]
    return [build_tree(members, range(len(rows)), [1.0] * len(rows))]


def ours(work: Work) -> Side:
    """The product, as it is trained with: one tree a pair, or one tree for all pairs of one problem."""
    return _side("ours", work, together(work.rows) if work.grouped else apart(work.rows))


def pairs(work: Work) -> Side:
    """The product on the same pairs without grouping: each pair shares its own beginning alone."""
    return _side("pairs", work, apart(work.rows))


def _side(name: str, work: Work, trees: Sequence[TokenTree]) -> Side:
    model = build(work.shape, backend(work.device), work.dtype, work.device)
    has_kl = work.loss == "tdpo2"
    scorer = Scorer(model, keep_reference_head=has_kl, gather=lambda parameters: nullcontext()).train()
    plain = collate(trees).to(work.device)
    objective = TDPO(beta=BETA, alpha=ALPHA) if has_kl else DPO(beta=BETA)
    # Before the policy is moved: the reference is what the model was at the start.
    batch = with_reference(scorer, plain, has_kl) if work.known else _placeholder(work, plain, has_kl)
    move(model)

    def loss() -> Tensor:
        return objective(scores(scorer, batch)).losses_B.mean()

    def prepare() -> None:
        with_reference(scorer, plain, has_kl)

    return Side(name, loss, prepare, model)


def backend(device: str) -> str:
    """The name of the tree attention that training would choose for the device."""
    return register(Attention.auto, torch.device(device))


@torch.no_grad()
def with_reference(scorer: Any, batch: TreeBatch, has_kl: bool) -> TreeBatch:
    """The batch with the numbers of the model as it is now: the pass that fills the cache."""
    known = scorer(batch)
    hidden_TH = known.hidden_TH if has_kl else None
    return dataclasses.replace(batch, reference_logps_R=known.logps_R, reference_hidden_TH=hidden_TH)


def _placeholder(work: Work, batch: TreeBatch, has_kl: bool) -> TreeBatch:
    # Of the right shapes and of no meaning: the measured peak must not be that of the reference pass.
    hidden = torch.zeros(len(batch.target_T), work.shape.hidden, dtype=work.dtype) if has_kl else None
    return dataclasses.replace(batch, reference_logps_R=torch.zeros(2 * batch.pairs), reference_hidden_TH=hidden).to(
        work.device
    )


def scores(scorer: Any, batch: TreeBatch) -> PairScores:
    """What a loss sees, as in training."""
    return pair_scores(batch, scorer(batch))
