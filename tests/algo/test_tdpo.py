"""TDPO against section 4 of its paper (arXiv 2404.11999), written out with plain floats."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.dpo import DPO
from stepdpo.algo.tdpo import TDPO, Form

CHOSEN, REJECTED = [-3.0, -7.5, -1.0], [-4.0, -2.0, -9.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-3.5, -5.0, -1.25], [-3.0, -4.5, -2.0]
KL_CHOSEN, KL_REJECTED = [0.5, 2.0, 0.125], [1.5, 0.25, 4.0]
U = [1.5, -5.0, 7.25]
"""The paper's u: chosen_logratio - rejected_logratio."""
DELTA = [1.0, -1.75, 3.875]
"""The paper's delta: K_rejected - K_chosen."""


def scores(**changes: Any):
    given = {"chosen_kl": KL_CHOSEN, "rejected_kl": KL_REJECTED} | changes
    return pair_scores(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, **given)


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return log(1 + exp(x))


def same(values: Any, expected: list[float]) -> None:
    torch.testing.assert_close(values, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_tdpo1_is_u_minus_delta() -> None:
    out = TDPO(beta=0.4, form=Form.tdpo1)(scores())
    same(out.losses_B, [softplus(-0.4 * (u - d)) for u, d in zip(U, DELTA, strict=True)])


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2.0])
def test_tdpo2_weighs_delta_by_alpha(alpha: float) -> None:
    out = TDPO(beta=0.1, alpha=alpha)(scores())
    same(out.losses_B, [softplus(-0.1 * (u - alpha * d)) for u, d in zip(U, DELTA, strict=True)])


def test_tdpo1_does_not_look_at_alpha() -> None:
    losses = [TDPO(form=Form.tdpo1, alpha=alpha)(scores()).losses_B for alpha in (0.0, 3.0)]
    torch.testing.assert_close(losses[0], losses[1])


def test_tdpo2_with_alpha_0_is_dpo() -> None:
    ours, dpo = scores(), scores()
    losses = TDPO(beta=0.3, alpha=0.0)(ours).losses_B
    expected = DPO(beta=0.3)(dpo).losses_B
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.chosen_logps_B.grad, dpo.chosen_logps_B.grad)
    torch.testing.assert_close(ours.rejected_logps_B.grad, dpo.rejected_logps_B.grad)
    same(ours.rejected_kl_B.grad, [0.0, 0.0, 0.0])  # type: ignore[union-attr]


@pytest.mark.parametrize("form", Form)
def test_at_the_reference_it_is_log_2_with_the_gradient_of_dpo(form: Form) -> None:
    """K = 0 there, and so is grad K (tests/models/test_logprobs.py), so only the log-ratios pull."""
    nothing = {"chosen_kl": [0.0] * 3, "rejected_kl": [0.0] * 3}
    ours = pair_scores(CHOSEN, REJECTED, CHOSEN, REJECTED, **nothing)
    dpo = pair_scores(CHOSEN, REJECTED, CHOSEN, REJECTED)
    out = TDPO(form=form)(ours)
    out.losses_B.sum().backward()
    DPO()(dpo).losses_B.sum().backward()
    same(out.losses_B, [log(2)] * 3)
    assert out.chosen_rewards_B.tolist() == out.rejected_rewards_B.tolist() == [0.0] * 3
    torch.testing.assert_close(ours.chosen_logps_B.grad, dpo.chosen_logps_B.grad)
    torch.testing.assert_close(ours.rejected_logps_B.grad, dpo.rejected_logps_B.grad)


@pytest.mark.parametrize("form", Form)
def test_gradient(form: Form) -> None:
    """-beta sigmoid(-beta z) [d logp_w - d logp_l - a d K_l (+ d K_w, for tdpo1 alone)]."""
    given, beta, alpha = scores(), 0.4, 0.5
    TDPO(beta=beta, alpha=alpha, form=form)(given).losses_B.sum().backward()
    weight = alpha if form is Form.tdpo2 else 1.0
    pulls = [beta / (1 + exp(beta * (u - weight * d))) for u, d in zip(U, DELTA, strict=True)]
    same(given.chosen_logps_B.grad, [-p for p in pulls])
    same(given.rejected_logps_B.grad, pulls)
    same(given.rejected_kl_B.grad, [weight * p for p in pulls])  # type: ignore[union-attr]
    if form is Form.tdpo1:
        same(given.chosen_kl_B.grad, [-p for p in pulls])  # type: ignore[union-attr]
    else:
        assert given.chosen_kl_B.grad is None  # type: ignore[union-attr]


@pytest.mark.parametrize("form", Form)
def test_swapping_the_sides_negates_the_margin(form: Form) -> None:
    here = TDPO(form=form)(scores())
    there = TDPO(form=form)(
        pair_scores(
            REJECTED, CHOSEN, REFERENCE_REJECTED, REFERENCE_CHOSEN, chosen_kl=KL_REJECTED, rejected_kl=KL_CHOSEN
        )
    )
    torch.testing.assert_close(here.metrics_B["logit"], -there.metrics_B["logit"])
    torch.testing.assert_close(here.metrics_B["kl/margin"], -there.metrics_B["kl/margin"])


@pytest.mark.parametrize("form", Form)
def test_rewards_and_metrics_are_the_authors(form: Form) -> None:
    """Rewards beta (logratio + K), without alpha in either form."""
    out = TDPO(beta=0.4, alpha=0.5, form=form)(scores())
    same(out.chosen_rewards_B, [0.4 * (0.5 + 0.5), 0.4 * (-2.5 + 2.0), 0.4 * (0.25 + 0.125)])
    same(out.rejected_rewards_B, [0.4 * (-1.0 + 1.5), 0.4 * (2.5 + 0.25), 0.4 * (-7.0 + 4.0)])
    same(out.metrics_B["kl/chosen"], KL_CHOSEN)
    same(out.metrics_B["kl/rejected"], KL_REJECTED)
    same(out.metrics_B["kl/margin"], [-d for d in DELTA])
    weight = 0.5 if form is Form.tdpo2 else 1.0
    same(out.metrics_B["logit"], [0.4 * (u - weight * d) for u, d in zip(U, DELTA, strict=True)])
    same(out.metrics_B["dpo_margin"], [0.4 * u for u in U])
    assert not any(value.requires_grad for value in (out.chosen_rewards_B, *out.metrics_B.values()))


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"alpha": -0.1}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TDPO(**settings)
