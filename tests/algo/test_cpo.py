"""CPO (arXiv 2401.08417) written out with plain floats, and as DPO whose reference tells no side from the other."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from support.scores import pair_scores

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO

CHOSEN, REJECTED = [-3.0, -7.5, -1.0], [-4.0, -2.0, -9.0]
TOKENS, REJECTED_TOKENS = [4, 3, 2], [2, 5, 6]


def scores(*reference: list[float]) -> Any:
    return pair_scores(
        CHOSEN, REJECTED, *reference, tokens=TOKENS, rejected_tokens=REJECTED_TOKENS, dtype=torch.float64
    )


def same(values: Any, expected: Any) -> None:
    torch.testing.assert_close(values, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_it_is_its_formula(weight: float) -> None:
    """-log sigmoid(beta (log pi(y_w) - log pi(y_l))), sums, and weight times the mean over the chosen side's tokens."""
    out = CPO(beta=0.1, sft_weight=weight)(scores())
    rows = list(zip(CHOSEN, REJECTED, TOKENS, strict=True))
    same(out.losses_B, [log(1 + exp(-0.1 * (w - r))) - weight * w / n for w, r, n in rows])
    same(out.chosen_rewards_B, [0.1 * w for w in CHOSEN])
    same(out.rejected_rewards_B, [0.1 * r for r in REJECTED])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_it_is_dpo_with_a_reference_that_finds_both_sides_equally_likely(weight: float) -> None:
    constant = [-2.5, -11.0, -0.25]
    ours, dpo = scores(), scores(constant, constant)
    out, expected = CPO(beta=0.3, sft_weight=weight)(ours), DPO(beta=0.3, sft_weight=weight)(dpo)
    same(out.losses_B, expected.losses_B.detach())
    out.losses_B.sum().backward()
    expected.losses_B.sum().backward()
    same(ours.chosen_logps_B.grad, dpo.chosen_logps_B.grad)
    same(ours.rejected_logps_B.grad, dpo.rejected_logps_B.grad)


def test_no_reference_is_needed() -> None:
    assert CPO().needs == {"rejected"}


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"sft_weight": -1.0}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CPO(**settings)
