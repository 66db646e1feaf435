"""DPO-Positive (arXiv 2402.13228) written out with plain floats: its penalty stands inside the sigmoid."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.dpo import DPO
from stepdpo.algo.dpop import DPOP

CHOSEN, REJECTED = [-3.0, -7.5, -1.5], [-4.0, -2.0, -9.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-3.5, -5.0, -1.25], [-3.0, -4.5, -2.0]
D_CHOSEN, D_REJECTED = [0.5, -2.5, -0.25], [-1.0, 2.5, -7.0]
"""Log-ratios: of the first pair the chosen side has risen, of the others it has fallen."""


def scores(chosen: list[float] = CHOSEN, rejected: list[float] = REJECTED) -> Any:
    return pair_scores(chosen, rejected, REFERENCE_CHOSEN, REFERENCE_REJECTED, dtype=torch.float64)


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def margins(beta: float, penalty: float) -> list[float]:
    return [beta * (w - r - penalty * max(0.0, -w)) for w, r in zip(D_CHOSEN, D_REJECTED, strict=True)]


@pytest.mark.parametrize(("beta", "penalty"), [(0.3, 50.0), (0.1, 5.0), (0.4, 0.5)])
def test_it_is_its_formula(beta: float, penalty: float) -> None:
    """-log sigmoid(beta (d_w - d_l - lambda max(0, -d_w)))."""
    out = DPOP(beta=beta, penalty=penalty)(scores())
    same(out.losses_B, [log(1 + exp(-m)) for m in margins(beta, penalty)])
    same(out.metrics_B["logit"], margins(beta, penalty))
    same(out.metrics_B["penalty"], [0.0, penalty * 2.5, penalty * 0.25])
    same(out.chosen_rewards_B, [beta * w for w in D_CHOSEN])
    same(out.rejected_rewards_B, [beta * r for r in D_REJECTED])
    assert not any(value.requires_grad for value in (out.chosen_rewards_B, *out.metrics_B.values()))


def test_a_fallen_chosen_side_is_pulled_up_1_plus_lambda_times_as_hard() -> None:
    """-beta sigmoid(-m) (1 + lambda) where d_w < 0, -beta sigmoid(-m) elsewhere; the rejected side never changes."""
    given, beta, penalty = scores(), 0.3, 5.0
    DPOP(beta=beta, penalty=penalty)(given).losses_B.sum().backward()
    pulls = [beta / (1 + exp(m)) for m in margins(beta, penalty)]
    factors = [1.0, 1 + penalty, 1 + penalty]
    same(given.chosen_logps_B.grad, [-p * f for p, f in zip(pulls, factors, strict=True)])
    same(given.rejected_logps_B.grad, pulls)


def test_with_lambda_0_it_is_dpo() -> None:
    ours, dpo = scores(), scores()
    out, expected = DPOP(beta=0.3, penalty=0.0)(ours), DPO(beta=0.3)(dpo)
    same(out.losses_B, expected.losses_B.detach())
    out.losses_B.sum().backward()
    expected.losses_B.sum().backward()
    same(ours.chosen_logps_B.grad, dpo.chosen_logps_B.grad)
    same(ours.rejected_logps_B.grad, dpo.rejected_logps_B.grad)


@pytest.mark.parametrize("risen", [0.0, -1e-7, 0.1])
def test_where_the_chosen_side_has_not_fallen_it_is_dpo_for_every_lambda(risen: float) -> None:
    """Nor is there a penalty on what rounding makes of nothing: the first update is DPO's."""
    chosen = [r + risen for r in REFERENCE_CHOSEN]
    for penalty in (5.0, 500.0):
        ours, dpo = scores(chosen), scores(chosen)
        out, expected = DPOP(penalty=penalty)(ours), DPO(beta=0.3)(dpo)
        same(out.losses_B, expected.losses_B.detach())
        out.losses_B.sum().backward()
        expected.losses_B.sum().backward()
        same(ours.chosen_logps_B.grad, dpo.chosen_logps_B.grad)


def test_the_loss_grows_with_lambda_where_the_chosen_side_has_fallen() -> None:
    losses = [DPOP(penalty=penalty)(scores()).losses_B for penalty in (0.0, 1.0, 5.0, 50.0)]
    for less, more in pairwise(losses):
        assert less[0] == more[0]
        assert (less[1:] < more[1:]).all()


def test_tens_of_nats_below_the_reference_are_no_infinity() -> None:
    given = scores([-3000.0] * 3)
    loss = DPOP(penalty=500.0)(given).losses_B
    loss.sum().backward()
    assert loss.isfinite().all()
    assert given.chosen_logps_B.grad.isfinite().all()


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"penalty": -1.0}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DPOP(**settings)
