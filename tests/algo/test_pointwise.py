"""The losses that look at each side by itself: KTO, NCA and supervised fine-tuning, against their papers."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.sft import SFT

CHOSEN, REJECTED = [-3.0, -7.5], [-4.0, -2.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-3.5, -5.0], [-3.0, -4.5]
D_CHOSEN, D_REJECTED = [0.5, -2.5], [-1.0, 2.5]
"""Log-ratios of the two sides."""


def scores(**changes: Any):
    return pair_scores(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, **changes)


def at_the_reference(**changes: Any):
    return pair_scores(CHOSEN, REJECTED, CHOSEN, REJECTED, **changes)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def same(values: Any, expected: list[float]) -> None:
    torch.testing.assert_close(values, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("z0", [0.0, 0.7])
def test_kto_is_equation_8_of_its_paper(z0: float) -> None:
    """lambda_y - v, with v = lambda_D sigmoid(beta (d - z0)) for the good and lambda_U sigmoid(beta (z0 - d))."""
    out = KTO(beta=0.4, desirable=1.33, undesirable=0.9)(scores(reference_point=z0))
    expected = [
        1.33 * (1 - sigmoid(0.4 * (w - z0))) + 0.9 * (1 - sigmoid(0.4 * (z0 - r)))
        for w, r in zip(D_CHOSEN, D_REJECTED, strict=True)
    ]
    same(out.losses_B, expected)
    same(out.chosen_rewards_B, [0.4 * d for d in D_CHOSEN])
    same(out.rejected_rewards_B, [0.4 * d for d in D_REJECTED])
    same(out.metrics_B["reference_point"], [z0, z0])


def test_kto_at_the_reference() -> None:
    out = KTO(desirable=1.5, undesirable=0.5)(at_the_reference(reference_point=0.0))
    same(out.losses_B, [1.0, 1.0])
    assert out.chosen_rewards_B.tolist() == out.rejected_rewards_B.tolist() == [0.0, 0.0]


def test_kto_gradient_is_largest_near_the_reference_point() -> None:
    """d loss / d logp_w = -lambda_D beta s (1 - s), s = sigmoid(beta (d - z0)); z0 is a constant."""
    given = scores(reference_point=0.5)
    KTO(beta=0.4)(given).losses_B.sum().backward()
    s = [sigmoid(0.4 * (d - 0.5)) for d in D_CHOSEN]
    t = [sigmoid(0.4 * (0.5 - d)) for d in D_REJECTED]
    same(given.chosen_logps_B.grad, [-0.4 * p * (1 - p) for p in s])
    same(given.rejected_logps_B.grad, [0.4 * p * (1 - p) for p in t])


def test_nca_is_the_pairwise_loss_of_its_paper() -> None:
    """-log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l), r = beta d."""
    expected = [
        -log(sigmoid(0.4 * w)) - 0.5 * log(sigmoid(-0.4 * w)) - 0.5 * log(sigmoid(-0.4 * r))
        for w, r in zip(D_CHOSEN, D_REJECTED, strict=True)
    ]
    out = NCA(beta=0.4)(scores())
    same(out.losses_B, expected)
    same(out.chosen_rewards_B, [0.4 * d for d in D_CHOSEN])
    same(out.rejected_rewards_B, [0.4 * d for d in D_REJECTED])
    assert not out.chosen_rewards_B.requires_grad


def test_nca_at_the_reference_is_2_log_2() -> None:
    out = NCA()(at_the_reference())
    same(out.losses_B, [2 * log(2)] * 2)
    assert out.chosen_rewards_B.tolist() == out.rejected_rewards_B.tolist() == [0.0, 0.0]


def test_nca_raises_the_chosen_side_by_itself() -> None:
    """At the reference: d loss / d r_w = -1/2 + 1/4, and d loss / d r_l = 1/4."""
    given = at_the_reference()
    NCA(beta=1.0)(given).losses_B.sum().backward()
    same(given.chosen_logps_B.grad, [-0.25, -0.25])
    same(given.rejected_logps_B.grad, [0.25, 0.25])


def test_sft_divides_by_the_scored_tokens() -> None:
    given = pair_scores(CHOSEN, [0.0, 0.0], tokens=[2, 5])
    out = SFT()(given)
    same(out.losses_B, [3.0 / 2, 7.5 / 5])
    same(out.metrics_B["nll_per_token"], [3.0 / 2, 7.5 / 5])
    out.losses_B.sum().backward()
    same(given.chosen_logps_B.grad, [-1 / 2, -1 / 5])
    assert given.rejected_logps_B.grad is None


def test_sft_may_sum() -> None:
    out = SFT(per_token=False)(pair_scores(CHOSEN, [0.0, 0.0], tokens=[2, 5]))
    same(out.losses_B, [3.0, 7.5])
    same(out.metrics_B["nll_per_token"], [3.0 / 2, 7.5 / 5])


def test_what_a_loss_asks_for_is_what_it_needs() -> None:
    assert SFT().needs == {"right"}
    assert SFT(keep_wrong=True).needs == frozenset()
    assert NCA().needs == {"rejected", "reference"}
    assert KTO().needs == {"rejected", "reference", "reference_point"}


@pytest.mark.parametrize("kind", [KTO, NCA])
def test_beta_must_be_positive(kind: Any) -> None:
    with pytest.raises(ValueError, match="beta"):
        kind(beta=0.0)


@pytest.mark.parametrize("settings", [{"desirable": -1.0}, {"undesirable": -0.5}])
def test_kto_weights_must_not_be_negative(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="desirable"):
        KTO(**settings)
