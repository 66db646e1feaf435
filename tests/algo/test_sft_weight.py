"""`sft_weight`: the chosen side's negative log-likelihood a token beside each preference loss (arXiv 2404.19733)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO, Form
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.sft import SFT
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.tdpo import TDPO
from stepdpo.algo.wpo import WPO
from stepdpo.tokens.pair_scores import SftScope

CHOSEN, REJECTED = [-3.0, -7.5, -1.0], [-4.0, -2.0, -9.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-3.5, -5.0, -1.25], [-3.0, -4.5, -2.0]
TOKENS = [4, 3, 2]
LOSSES = {
    "dpo": DPO, "hinge": lambda **s: DPO(form=Form.hinge, **s), "ipo": lambda **s: DPO(form=Form.ipo, **s),
    "robust": lambda **s: DPO(form=Form.robust, label_smoothing=0.1, **s),
    "tdpo": TDPO, "kto": KTO, "nca": NCA, "simpo": SimPO, "cpo": CPO, "wpo": WPO,
}  # fmt: skip


def scores(rows: slice = slice(None), reference: list[float] = REFERENCE_CHOSEN) -> Any:
    found = pair_scores(
        CHOSEN[rows], REJECTED[rows], reference[rows], REFERENCE_REJECTED[rows],
        chosen_kl=[0.5, 2.0, 0.125][rows], rejected_kl=[1.5, 0.25, 4.0][rows],
        tokens=TOKENS[rows], rejected_tokens=[2, 5, 6][rows], reference_point=0.3, dtype=torch.float64,
    )  # fmt: skip
    collision = {"chosen_collision_B": [-2.0, -7.0, -3.0][rows], "rejected_collision_B": [-3.0, -1.0, -8.0][rows]}
    return replace(found, **{name: torch.tensor(values, dtype=torch.float64) for name, values in collision.items()})


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_it_adds_its_weight_times_the_mean_over_the_chosen_sides_tokens(name: str) -> None:
    """loss - alpha log pi(y_w) / n_w, pair by pair; and alpha / n_w less gradient on the chosen side."""
    plain, given = scores(), scores()
    without, with_it = LOSSES[name](sft_weight=0.0)(plain), LOSSES[name](sft_weight=0.7)(given)
    nll = [-w / n for w, n in zip(CHOSEN, TOKENS, strict=True)]
    same(with_it.losses_B - without.losses_B, [0.7 * value for value in nll])
    same(with_it.metrics_B["nll"], nll)
    assert not with_it.metrics_B["nll"].requires_grad
    without.losses_B.sum().backward()
    with_it.losses_B.sum().backward()
    same(given.chosen_logps_B.grad - plain.chosen_logps_B.grad, [-0.7 / n for n in TOKENS])
    same(given.rejected_logps_B.grad, plain.rejected_logps_B.grad)


@pytest.mark.parametrize("name", LOSSES)
def test_over_the_rest_it_is_the_mean_over_the_step_and_its_rest(name: str) -> None:
    """loss - alpha log pi(y_w and its rest) / their tokens; the preference stays one between the steps."""
    rest, tokens = torch.tensor([-3.0, -9.5, -6.0], dtype=torch.float64, requires_grad=True), [4, 8, 12]
    plain, given = scores(), replace(scores(), rest_logps_B=rest, rest_tokens_B=torch.tensor(tokens))
    without = LOSSES[name](sft_weight=0.0)(plain)
    with_it = LOSSES[name](sft_weight=0.7, sft_scope=SftScope.rest)(given)
    nll = [3.0 / 4, 9.5 / 8, 6.0 / 12]
    same(with_it.losses_B - without.losses_B, [0.7 * value for value in nll])
    same(with_it.metrics_B["nll"], nll)
    without.losses_B.sum().backward()
    with_it.losses_B.sum().backward()
    same(rest.grad, [-0.7 / n for n in tokens])
    same(given.chosen_logps_B.grad, plain.chosen_logps_B.grad)
    same(given.rejected_logps_B.grad, plain.rejected_logps_B.grad)


@pytest.mark.parametrize("name", LOSSES)
def test_with_weight_0_no_bit_is_another(name: str) -> None:
    """CPO's default is 1; of all others, the default."""
    settings = {"sft_weight": 0.0} if name == "cpo" else {}
    out = LOSSES[name](**settings)(scores())
    assert "nll" not in out.metrics_B
    if name == "dpo":
        z = scores().chosen_logratios_B - scores().rejected_logratios_B
        assert torch.equal(out.losses_B, (1 - 0.0) * -torch.nn.functional.logsigmoid(0.4 * z))


def test_it_does_not_depend_on_who_shares_the_batch() -> None:
    """A mean over all tokens of a batch would."""
    together = DPO(sft_weight=1.0)(scores()).losses_B
    for row in range(3):
        alone = DPO(sft_weight=1.0)(scores(slice(row, row + 1))).losses_B
        assert torch.equal(together[row : row + 1], alone)


def test_it_does_not_depend_on_the_reference() -> None:
    nll = [DPO(sft_weight=1.0)(scores(reference=r)).metrics_B["nll"] for r in (REFERENCE_CHOSEN, [-9.0, -8.0, -7.0])]
    assert torch.equal(*nll)


def test_as_beta_goes_to_0_its_gradient_is_that_of_supervised_training() -> None:
    """And what DPO adds is at most beta."""
    given, sft = scores(), scores()
    DPO(beta=1e-9, sft_weight=1.0)(given).losses_B.sum().backward()
    SFT()(sft).losses_B.sum().backward()
    torch.testing.assert_close(given.chosen_logps_B.grad, sft.chosen_logps_B.grad, rtol=0, atol=1e-9)
    assert given.rejected_logps_B.grad is not None
    assert (given.rejected_logps_B.grad.abs() <= 1e-9).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="sft_weight"):
        LOSSES[name](sft_weight=-0.1)
