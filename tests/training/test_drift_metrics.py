"""How far the chosen sides have moved: means over the pairs of an update, whatever micro-batch they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stepdpo.algo.dpo import DPO
from stepdpo.algo.sft import SFT
from stepdpo.algo.tdpo import TDPO
from stepdpo.models.scorer import Scores
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.batch_sampler import BatchSize, MicroBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.pair_scores import Loss
from stepdpo.tokens.token_tree import TokenSequence, build_tree
from stepdpo.training.step import StepInputs, TrainStep

POLICY = {0: (-6.0, -9.0), 1: (-8.0, -7.0), 2: (-3.0, -1.0)}
"""By pair: log-probability of the chosen and of the rejected side."""
REFERENCE = {0: (-5.0, -5.0), 1: (-9.0, -9.0), 2: (-2.5, -2.0)}
KL = {0: (1.0, 5.0), 1: (0.5, 2.0), 2: (0.25, 1.0)}
TOKENS = {0: (4, 7), 1: (2, 3), 2: (5, 1)}


def of(table: dict[int, Any], batch: TreeBatch) -> torch.Tensor:
    return torch.tensor([number for pair in batch.pair_ids for number in table[pair]], dtype=torch.float64)


class Fixed:
    """An engine and a reference in one, whose numbers are the tables'."""

    rank, local_rank, world_size = 0, 0, 1

    def score(self, batch: TreeBatch) -> Scores:
        return Scores(of(POLICY, batch), of(KL, batch), of(TOKENS, batch), torch.zeros(1, 1))

    def attach_online(self, batch: TreeBatch) -> TreeBatch:
        return replace(batch, reference_logps_R=of(REFERENCE, batch), reference_hidden_TH=torch.zeros(1, 1))

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        return list(values)


def metrics_of(loss: Loss) -> dict[str, float]:
    """Two pairs in one micro-batch, one in another, and a stand-in that must not count."""
    sides = [TokenSequence(np.array(tokens, np.int32), 1, side) for side, tokens in enumerate(([1, 2], [1, 3]))]
    trees = [build_tree(sides, [pair], [1.0]) for pair in POLICY]
    batches = ((trees[:2], 1.0), (trees[2:], 1.0), (trees[:1], 0.0))
    micro_batches = tuple(MicroBatch(collate(some), weight) for some, weight in batches)
    fixed: Any = Fixed()
    return TrainStep(fixed, loss, BatchSize(), fixed).compute(StepInputs(3, micro_batches, ()), learn=False)


@pytest.mark.parametrize("loss", [DPO(), TDPO()])
def test_means_over_the_pairs(loss: Loss) -> None:
    """Log-ratios of the chosen sides: -6 + 5 = -1, -8 + 9 = 1, -3 + 2.5 = -0.5; two of three fell."""
    metrics = metrics_of(loss)
    assert metrics["logratios/chosen"] == pytest.approx((-1 + 1 - 0.5) / 3, rel=1e-12)
    assert metrics["logratios/chosen_per_token"] == pytest.approx((-1 / 4 + 1 / 2 - 0.5 / 5) / 3, rel=1e-12)
    assert metrics["chosen_fell"] == pytest.approx(2 / 3, rel=1e-12)
    assert metrics["chosen_lost_per_token"] == pytest.approx((1 / 4 + 0.5 / 5) / 3, rel=1e-12)


def test_the_kl_a_token() -> None:
    assert metrics_of(TDPO())["kl/chosen_per_token"] == pytest.approx((1 / 4 + 0.5 / 2 + 0.25 / 5) / 3, rel=1e-12)


def test_a_loss_without_a_reference_has_none_of_them() -> None:
    assert not {"logratios/chosen", "chosen_fell"} & metrics_of(SFT()).keys()
