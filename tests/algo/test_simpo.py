"""SimPO (arXiv 2405.14734, equation 6) written out with plain floats, and where it meets other losses."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO, Normalise
from stepdpo.algo.simpo import SimPO

CHOSEN, REJECTED = [-3.0, -7.5, -1.0], [-4.0, -2.0, -9.0]
CHOSEN_TOKENS, REJECTED_TOKENS = [4, 3, 2], [2, 5, 6]


def scores(chosen: list[float] = CHOSEN, rejected: list[float] = REJECTED, **changes: Any) -> Any:
    given = {"tokens": CHOSEN_TOKENS, "rejected_tokens": REJECTED_TOKENS, "dtype": torch.float64} | changes
    return pair_scores(chosen, rejected, **given)


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize(("beta", "ratio"), [(2.0, 0.5), (10.0, 0.3), (2.5, 0.0)])
def test_it_is_its_formula(beta: float, ratio: float) -> None:
    """-log sigmoid(beta / n_w log pi(y_w) - beta / n_l log pi(y_l) - gamma), gamma = beta ratio."""
    means = [
        (w / n, r / m) for w, n, r, m in zip(CHOSEN, CHOSEN_TOKENS, REJECTED, REJECTED_TOKENS, strict=True)
    ]  # fmt: skip
    out = SimPO(beta=beta, gamma_beta_ratio=ratio)(scores())
    same(out.losses_B, [-log(sigmoid(beta * w - beta * r - beta * ratio)) for w, r in means])
    same(out.chosen_rewards_B, [beta * w for w, _ in means])
    same(out.rejected_rewards_B, [beta * r for _, r in means])
    assert out.metrics_B["above_gamma"].tolist() == [float(w - r > ratio) for w, r in means]
    assert not out.chosen_rewards_B.requires_grad


def test_its_gradient_is_shared_out_over_the_tokens() -> None:
    """-beta sigmoid(-margin) / n_w for the chosen side, + ... / n_l for the rejected one."""
    given = scores()
    SimPO(beta=2.0, gamma_beta_ratio=0.5)(given).losses_B.sum().backward()
    rows = list(zip(CHOSEN, CHOSEN_TOKENS, REJECTED, REJECTED_TOKENS, strict=True))
    pulls = [2 * sigmoid(-(2 * (w / n - r / m) - 1)) for w, n, r, m in rows]
    same(given.chosen_logps_B.grad, [-p / n for p, n in zip(pulls, CHOSEN_TOKENS, strict=True)])
    same(given.rejected_logps_B.grad, [p / m for p, m in zip(pulls, REJECTED_TOKENS, strict=True)])


@pytest.mark.parametrize("nats", [-0.7, 2.0])
def test_the_same_number_of_nats_for_every_token_changes_nothing(nats: float) -> None:
    chosen = [w + n * nats for w, n in zip(CHOSEN, CHOSEN_TOKENS, strict=True)]
    rejected = [r + m * nats for r, m in zip(REJECTED, REJECTED_TOKENS, strict=True)]
    same(SimPO()(scores(chosen, rejected)).losses_B, SimPO()(scores()).losses_B.detach())


def test_without_a_margin_and_with_equal_lengths_it_is_the_preference_term_of_cpo() -> None:
    """At beta / n."""
    given = scores(rejected_tokens=None, tokens=[5, 5, 5])
    expected = CPO(beta=2.0 / 5, sft_weight=0.0)(given)
    out = SimPO(beta=2.0, gamma_beta_ratio=0.0)(given)
    same(out.losses_B, expected.losses_B.detach())
    same(out.chosen_rewards_B, expected.chosen_rewards_B)


def test_without_a_margin_it_is_mean_dpo_held_against_certainty() -> None:
    """A reference that gives every token probability 1 has a log-probability of 0."""
    nothing = [0.0, 0.0, 0.0]
    tokens: Any = {"tokens": CHOSEN_TOKENS, "rejected_tokens": REJECTED_TOKENS}
    held = pair_scores(CHOSEN, REJECTED, nothing, nothing, dtype=torch.float64, **tokens)
    expected = DPO(beta=2.0, normalise=Normalise.mean)(held)
    same(SimPO(beta=2.0, gamma_beta_ratio=0.0)(scores()).losses_B, expected.losses_B.detach())


def test_no_reference_is_needed() -> None:
    assert SimPO().needs == {"rejected"}


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"gamma_beta_ratio": -0.1}, {"sft_weight": -1.0}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SimPO(**settings)
