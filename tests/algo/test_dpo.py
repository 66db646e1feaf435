"""DPO's forms against their papers, written out with plain floats."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support.scores import pair_scores

from stepdpo.algo.dpo import DPO, Form, Normalise
from stepdpo.tokens.pair_scores import PairScores

CHOSEN, REJECTED = [-3.0, -7.5, -1.0], [-4.0, -2.0, -9.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-3.5, -5.0, -1.25], [-3.0, -4.5, -2.0]
Z = [(-3 + 3.5) - (-4 + 3), (-7.5 + 5) - (-2 + 4.5), (-1 + 1.25) - (-9 + 2)]
"""z = chosen_logratio - rejected_logratio: 1.5, -5, 7.25."""


def scores(confidence: float = 1.0):
    return pair_scores(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, confidence=[confidence] * 3)


def log_sigmoid(x: float) -> float:
    return -log(1 + exp(-x))


def same(losses: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.4, 2.0])
def test_sigmoid_is_equation_7_of_the_dpo_paper(beta: float) -> None:
    """-log sigmoid(beta log(pi(y_w)/ref(y_w)) - beta log(pi(y_l)/ref(y_l)))."""
    same(DPO(beta=beta)(scores()).losses_B, [-log_sigmoid(beta * z) for z in Z])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_the_bit_sigmoid_is_its_two_terms(dtype: torch.dtype, smoothing: float) -> None:
    """Value and gradient, (1 - e) (-log sigmoid(beta z)) + e (-log sigmoid(-beta z)): runs are resumed midway."""
    confidence = torch.tensor([1.0, 0.8, 0.55])
    given = (REFERENCE_CHOSEN, REFERENCE_REJECTED)
    ours, plain = (pair_scores(CHOSEN, REJECTED, *given, confidence=confidence.tolist(), dtype=dtype) for _ in "ab")
    losses = DPO(beta=0.37, label_smoothing=smoothing)(ours).losses_B
    z = plain.chosen_logratios_B - plain.rejected_logratios_B
    right, flipped = -F.logsigmoid(0.37 * z), -F.logsigmoid(-0.37 * z)
    e = (1 - confidence).clamp(min=smoothing, max=0.5)
    expected = (1 - e) * right + e * flipped
    assert torch.equal(losses, expected)
    losses.mean().backward()
    expected.mean().backward()
    assert torch.equal(ours.chosen_logps_B.grad, plain.chosen_logps_B.grad)
    assert torch.equal(ours.rejected_logps_B.grad, plain.rejected_logps_B.grad)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_hinge(beta: float) -> None:
    same(DPO(beta=beta, form=Form.hinge)(scores()).losses_B, [max(0.0, 1 - beta * z) for z in Z])


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_ipo_is_equation_17_of_the_ipo_paper(beta: float) -> None:
    """(h - 1 / (2 tau))^2, tau = beta, h on summed log-ratios."""
    same(DPO(beta=beta, form=Form.ipo)(scores()).losses_B, [(z - 1 / (2 * beta)) ** 2 for z in Z])


@pytest.mark.parametrize("e", [0.1, 0.5])
def test_label_smoothing(e: float) -> None:
    """Conservative DPO: -(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z)."""
    expected = [-(1 - e) * log_sigmoid(0.4 * z) - e * log_sigmoid(-0.4 * z) for z in Z]
    same(DPO(label_smoothing=e)(scores()).losses_B, expected)


@pytest.mark.parametrize("e", [0.1, 0.4])
def test_robust_is_equation_12_of_the_robust_paper(e: float) -> None:
    """(-(1 - e) log sigmoid(beta z) + e log sigmoid(-beta z)) / (1 - 2 e)."""
    expected = [(-(1 - e) * log_sigmoid(0.4 * z) + e * log_sigmoid(-0.4 * z)) / (1 - 2 * e) for z in Z]
    same(DPO(label_smoothing=e, form=Form.robust)(scores()).losses_B, expected)


def test_robust_is_unbiased() -> None:
    """Its mean over labels flipped with probability e is the loss on clean labels."""
    e = 0.2
    loss = DPO(label_smoothing=e, form=Form.robust)
    flipped = pair_scores(REJECTED, CHOSEN, REFERENCE_REJECTED, REFERENCE_CHOSEN)
    mean = (1 - e) * loss(scores()).losses_B + e * loss(flipped).losses_B
    torch.testing.assert_close(mean, DPO()(scores()).losses_B)


@pytest.mark.parametrize("form", [Form.sigmoid, Form.robust])
def test_a_pairs_own_confidence_is_its_smoothing(form: Form) -> None:
    """Row by row, the larger of 1 - confidence and label_smoothing."""
    confidence = [1.0, 0.9, 0.6]
    mixed = pair_scores(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, confidence=confidence)
    got = DPO(form=form, label_smoothing=0.2)(mixed).losses_B
    for row, e in enumerate([0.2, 0.2, 0.4]):
        alone = DPO(form=form, label_smoothing=e)(scores()).losses_B[row]
        torch.testing.assert_close(got[row], alone)


def test_robust_stays_finite_for_a_pair_of_confidence_one_half() -> None:
    out = DPO(form=Form.robust)(scores(confidence=0.5))
    assert out.losses_B.isfinite().all()


@pytest.mark.parametrize("e", [0.0, 0.3])
def test_at_the_reference_the_loss_is_log_2_and_rewards_are_0(e: float) -> None:
    out = DPO(label_smoothing=e)(pair_scores(CHOSEN, REJECTED, CHOSEN, REJECTED))
    same(out.losses_B, [log(2)] * 3)
    assert out.chosen_rewards_B.tolist() == out.rejected_rewards_B.tolist() == [0.0] * 3


def test_full_smoothing_prefers_neither_side() -> None:
    """e = 1/2 is symmetric: swapping the sides changes nothing."""
    swapped = pair_scores(REJECTED, CHOSEN, REFERENCE_REJECTED, REFERENCE_CHOSEN)
    loss = DPO(label_smoothing=0.5)
    torch.testing.assert_close(loss(scores()).losses_B, loss(swapped).losses_B)


def test_swapping_the_sides_negates_the_margin() -> None:
    here = DPO()(scores())
    there = DPO()(pair_scores(REJECTED, CHOSEN, REFERENCE_REJECTED, REFERENCE_CHOSEN))
    margin = here.chosen_rewards_B - here.rejected_rewards_B
    torch.testing.assert_close(margin, -(there.chosen_rewards_B - there.rejected_rewards_B))
    same(there.losses_B, [-log_sigmoid(-0.4 * z) for z in Z])


def test_rewards_are_beta_times_the_logratio() -> None:
    out = DPO(beta=0.3)(scores())
    same(out.chosen_rewards_B, [0.3 * 0.5, 0.3 * -2.5, 0.3 * 0.25])
    same(out.rejected_rewards_B, [0.3 * -1.0, 0.3 * 2.5, 0.3 * -7.0])
    assert not out.chosen_rewards_B.requires_grad
    assert not out.rejected_rewards_B.requires_grad


def test_gradient_is_equation_in_section_4_of_the_dpo_paper() -> None:
    """d loss / d logp_w = -beta sigmoid(-beta z), and the opposite for logp_l."""
    given = scores()
    DPO(beta=0.4)(given).losses_B.sum().backward()
    weights = [0.4 / (1 + exp(0.4 * z)) for z in Z]
    same(given.chosen_logps_B.grad, [-w for w in weights])  # type: ignore[arg-type]
    same(given.rejected_logps_B.grad, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_extreme_margins_stay_finite(gap: float) -> None:
    given = pair_scores([gap], [0.0], [0.0], [0.0])
    losses = DPO()(given).losses_B
    losses.sum().backward()
    assert losses.isfinite().all()
    assert given.chosen_logps_B.grad is not None
    assert given.chosen_logps_B.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": -0.1}, "beta"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"label_smoothing": 0.6}, "label_smoothing"),
        ({"label_smoothing": 0.5, "form": Form.robust}, "label_smoothing"),
        ({"label_smoothing": 0.1, "form": Form.hinge}, "no meaning"),
        ({"label_smoothing": 0.1, "form": Form.ipo}, "no meaning"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPO(**settings)  # type: ignore[arg-type]


def test_a_loss_that_was_not_given_the_reference_says_so() -> None:
    with pytest.raises(AssertionError, match="needs the reference"):
        DPO()(pair_scores(CHOSEN, REJECTED))


TOKENS, REJECTED_TOKENS = [4, 3, 2], [2, 5, 6]
MEAN_Z = [0.5 / 4 + 1.0 / 2, -2.5 / 3 - 2.5 / 5, 0.25 / 2 + 7.0 / 6]
"""The difference of the log-ratios a token."""


def long_scores(tokens: list[int] = TOKENS, rejected_tokens: list[int] = REJECTED_TOKENS) -> PairScores:
    return pair_scores(
        CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, tokens=tokens, rejected_tokens=rejected_tokens,
        dtype=torch.float64,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_of_means_it_is_each_formula_with_log_ratios_a_token(beta: float) -> None:
    expected = {
        Form.sigmoid: [-log_sigmoid(beta * z) for z in MEAN_Z],
        Form.hinge: [max(0.0, 1 - beta * z) for z in MEAN_Z],
        Form.ipo: [(z - 1 / (2 * beta)) ** 2 for z in MEAN_Z],
    }
    for form, losses in expected.items():
        out = DPO(beta=beta, form=form, normalise=Normalise.mean)(long_scores())
        torch.testing.assert_close(out.losses_B, torch.tensor(losses, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(out.chosen_rewards_B, beta * torch.tensor([0.5 / 4, -2.5 / 3, 0.25 / 2]).double())
    torch.testing.assert_close(out.rejected_rewards_B, beta * torch.tensor([-1.0 / 2, 2.5 / 5, -7.0 / 6]).double())


def test_of_means_and_with_n_tokens_on_either_side_it_is_a_loss_of_sums() -> None:
    """At beta / n; IPO, a square, divided by n squared besides."""
    equal, n = long_scores([5, 5, 5], [5, 5, 5]), 5
    for form in (Form.sigmoid, Form.hinge, Form.ipo):
        of_means = DPO(beta=2.0, form=form, normalise=Normalise.mean)(equal).losses_B
        of_sums = DPO(beta=2.0 / n, form=form)(equal).losses_B
        if form is Form.ipo:
            of_sums = of_sums / n**2
        torch.testing.assert_close(of_means, of_sums, rtol=1e-10, atol=1e-10)


def test_the_robust_form_is_not_normalised() -> None:
    with pytest.raises(ValueError, match="normalise=mean"):
        DPO(form=Form.robust, normalise=Normalise.mean)
