"""WPO (arXiv 2406.11827) from distributions written out token by token, and where it is DPO."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.dpo import DPO
from stepdpo.algo.wpo import WPO
from stepdpo.tokens.pair_scores import PairScores

Distribution = tuple[float, ...]
CHOSEN: list[tuple[Distribution, int]] = [((0.7, 0.2, 0.1), 0), ((0.5, 0.25, 0.25), 1), ((0.1, 0.1, 0.8), 2)]
REJECTED: list[tuple[Distribution, int]] = [((0.7, 0.2, 0.1), 1), ((0.4, 0.3, 0.3), 2)]
"""At every scored position what the policy thinks of a vocabulary of three, and the token that stands there."""


def of_tokens(chosen: list[tuple[Distribution, int]], rejected: list[tuple[Distribution, int]]) -> PairScores:
    """One pair; the reference found the chosen side 0.5 nats less likely, and the rejected one 0.25 nats more."""
    logps = [sum(log(p[token]) for p, token in side) for side in (chosen, rejected)]
    scores = pair_scores(
        [logps[0]], [logps[1]], [logps[0] - 0.5], [logps[1] + 0.25],
        tokens=[len(chosen)], rejected_tokens=[len(rejected)], dtype=torch.float64,
    )  # fmt: skip
    collision = [
        torch.tensor([sum(log(sum(p**2 for p in d)) for d, _ in side)], dtype=torch.float64)
        for side in (chosen, rejected)
    ]
    return replace(scores, chosen_collision_B=collision[0], rejected_collision_B=collision[1])


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def side_weight(side: list[tuple[Distribution, int]]) -> float:
    """exp of the mean over tokens of log pi(y) - log sum_v pi(v)^2."""
    return exp(sum(log(p[token] / sum(v**2 for v in p)) for p, token in side) / len(side))


@pytest.mark.parametrize("beta", [0.01, 0.4])
def test_it_is_its_formula(beta: float) -> None:
    """-min(1, W(y_w) W(y_l)) log sigmoid(beta z), z = 0.5 + 0.25."""
    weight = side_weight(CHOSEN) * side_weight(REJECTED)
    assert weight < 1
    out = WPO(beta=beta)(of_tokens(CHOSEN, REJECTED))
    same(out.losses_B, [weight * log(1 + exp(-beta * 0.75))])
    same(out.metrics_B["weight"], [weight])
    same(out.metrics_B["weight_clamped"], [0.0])
    same(out.chosen_rewards_B, [beta * 0.5])
    same(out.rejected_rewards_B, [-beta * 0.25])


def test_the_weight_has_no_gradient() -> None:
    """That of DPO, times W."""
    given, dpo = of_tokens(CHOSEN, REJECTED), of_tokens(CHOSEN, REJECTED)
    WPO(beta=0.4)(given).losses_B.sum().backward()
    DPO(beta=0.4)(dpo).losses_B.sum().backward()
    weight = side_weight(CHOSEN) * side_weight(REJECTED)
    assert dpo.chosen_logps_B.grad is not None
    assert dpo.rejected_logps_B.grad is not None
    same(given.chosen_logps_B.grad, weight * dpo.chosen_logps_B.grad)
    same(given.rejected_logps_B.grad, weight * dpo.rejected_logps_B.grad)


UNIFORM, SURE = (1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ([(UNIFORM, 0), (UNIFORM, 2)], [(UNIFORM, 1)]),
        ([(SURE, 0), (SURE, 0)], [(SURE, 0)]),
        ([((0.9, 0.05, 0.05), 0)] * 2, [((0.8, 0.1, 0.1), 0)]),
    ],
    ids=["uniform", "sure", "peaked"],
)
def test_where_it_is_dpo(chosen: Any, rejected: Any) -> None:
    """A uniform policy, one that is sure of both sides, and one whose likeliest tokens both sides are: W = 1."""
    given, dpo = of_tokens(chosen, rejected), of_tokens(chosen, rejected)
    out, expected = WPO(beta=0.4)(given), DPO(beta=0.4)(dpo)
    same(out.metrics_B["weight"], [1.0])
    same(out.losses_B, expected.losses_B.detach())


def test_a_weight_above_1_is_1() -> None:
    """0.6 against 0.4^2 + 0.6^2 is 1.15: on the likeliest path the product over tokens would grow with every one."""
    peaked = [((0.6, 0.4, 0.0), 0)] * 3
    assert side_weight(peaked) > 1.15
    out = WPO()(of_tokens(peaked, peaked))
    same(out.metrics_B["weight"], [1.0])
    same(out.metrics_B["weight_clamped"], [1.0])


def test_of_its_own_samples_a_policy_expects_the_weight_of_a_token_to_be_1() -> None:
    """sum_v pi(v) pi(v) / sum pi^2 = 1."""
    p = (0.7, 0.2, 0.1)
    assert sum(q * side_weight([(p, token)]) for token, q in enumerate(p)) == pytest.approx(1, abs=1e-12)


def test_the_supervised_term_is_not_weighed() -> None:
    with_it, without = (WPO(sft_weight=w)(of_tokens(CHOSEN, REJECTED)) for w in (1.0, 0.0))
    logp = log(0.7) + log(0.25) + log(0.8)
    same(with_it.losses_B - without.losses_B.detach(), [-logp / 3])


def test_what_it_needs() -> None:
    assert WPO().needs == {"rejected", "reference", "collision"}


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"sft_weight": -1.0}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        WPO(**settings)
