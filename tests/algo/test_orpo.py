"""ORPO (arXiv 2403.07691, equations 6 and 7) written out with plain floats, and where probabilities are 0 and 1."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.orpo import CERTAIN, ORPO, log_odds
from stepdpo.algo.sft import SFT
from stepdpo.algo.simpo import SimPO

CHOSEN, REJECTED = [-3.0, -7.5, -0.5], [-4.0, -2.0, -9.0]
TOKENS, REJECTED_TOKENS = [4, 3, 2], [2, 5, 6]


def scores(chosen: list[float] = CHOSEN, rejected: list[float] = REJECTED, **changes: Any) -> Any:
    given = {"tokens": TOKENS, "rejected_tokens": REJECTED_TOKENS, "dtype": torch.float64} | changes
    return pair_scores(chosen, rejected, **given)


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def odds(mean: float) -> float:
    """p / (1 - p)."""
    return exp(mean) / (1 - exp(mean))


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_it_is_its_formula(alpha: float) -> None:
    """L_SFT - lambda log sigmoid(log(odds_w / odds_l)), with odds of the mean log-probability."""
    rows = [(w / n, r / m) for w, n, r, m in zip(CHOSEN, TOKENS, REJECTED, REJECTED_TOKENS, strict=True)]
    logs = [log(odds(w) / odds(r)) for w, r in rows]
    out = ORPO(alpha=alpha)(scores())
    same(out.losses_B, [-w + alpha * log(1 + exp(-x)) for (w, _), x in zip(rows, logs, strict=True)])
    same(out.chosen_rewards_B - out.rejected_rewards_B, logs)
    same(out.metrics_B["nll"], [-w for w, _ in rows])
    same(out.metrics_B["log_sigmoid_odds"], [-log(1 + exp(-x)) for x in logs])
    assert not any(value.requires_grad for value in (out.chosen_rewards_B, *out.metrics_B.values()))


def test_its_gradient() -> None:
    """d log_odds(a) / d a = 1 / (1 - p), and a = logp / n."""
    given, alpha = scores(), 0.1
    ORPO(alpha=alpha)(given).losses_B.sum().backward()
    wanted: tuple[list[float], list[float]] = ([], [])
    for w, n, r, m in zip(CHOSEN, TOKENS, REJECTED, REJECTED_TOKENS, strict=True):
        pull = alpha / (1 + odds(w / n) / odds(r / m))
        wanted[0].append((-1 - pull / (1 - exp(w / n))) / n)
        wanted[1].append(pull / (1 - exp(r / m)) / m)
    same(given.chosen_logps_B.grad, wanted[0])
    same(given.rejected_logps_B.grad, wanted[1])


def test_with_alpha_0_it_is_supervised_training() -> None:
    ours, sft = scores(), scores()
    out, expected = ORPO(alpha=0.0)(ours), SFT()(sft)
    same(out.losses_B, expected.losses_B.detach())
    out.losses_B.sum().backward()
    expected.losses_B.sum().backward()
    same(ours.chosen_logps_B.grad, sft.chosen_logps_B.grad)
    same(ours.rejected_logps_B.grad, [0.0] * 3)


def test_swapping_the_sides_negates_the_log_odds_ratio() -> None:
    here = ORPO()(scores())
    there = ORPO()(scores(REJECTED, CHOSEN, tokens=REJECTED_TOKENS, rejected_tokens=TOKENS))
    same(here.chosen_rewards_B - here.rejected_rewards_B, there.rejected_rewards_B - there.chosen_rewards_B)


@pytest.mark.parametrize("mean", [0.0, -1e-9, CERTAIN, -log(2), -50.0, -2000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_finite_from_probability_1_to_0(mean: float, dtype: torch.dtype) -> None:
    for chosen, rejected in ((mean, -1.0), (-1.0, mean), (mean, mean)):
        given = pair_scores([chosen], [rejected], tokens=[1], dtype=dtype)
        loss = ORPO()(given).losses_B
        loss.sum().backward()
        assert loss.isfinite().all()
        assert given.chosen_logps_B.grad is not None
        assert given.rejected_logps_B.grad is not None
        assert given.chosen_logps_B.grad.isfinite().all()
        assert given.rejected_logps_B.grad.isfinite().all()


def test_a_certain_side_counts_10_000_to_1_and_is_pulled_no_further() -> None:
    certain = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_odds(certain).sum(), certain)
    assert log_odds(certain).item() == pytest.approx(log(1e4), abs=1e-3)
    assert gradient.tolist() == [0.0]


@pytest.mark.parametrize("mean", [-1.001e-4, -1e-3, -0.69, -0.7, -30.0])
def test_log_odds_keep_their_digits_in_single_precision(mean: float) -> None:
    """Against the same in double precision, on both sides of the border between the two formulas."""
    exact = log_odds(torch.tensor(torch.tensor(mean).item(), dtype=torch.float64))
    assert float(log_odds(torch.tensor(mean))) == pytest.approx(float(exact), rel=1e-6, abs=1e-6)


def test_of_unlikely_sides_the_second_term_is_simpo() -> None:
    """Odds are probabilities there: -log sigmoid(a_w - a_l), beta 1 and no margin."""
    chosen, rejected = [-120.0, -90.0, -66.0], [-62.0, -160.0, -180.0]
    given = scores(chosen, rejected)
    second = ORPO(alpha=1.0)(given).losses_B - ORPO(alpha=0.0)(given).losses_B
    same(second, SimPO(beta=1.0, gamma_beta_ratio=0.0)(given).losses_B.detach())


def test_no_reference_is_needed() -> None:
    assert ORPO.needs == {"rejected"}


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        ORPO(alpha=-0.1)
