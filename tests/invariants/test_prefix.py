"""Where the shared prefix is put: an experiment for TDPO2 (and pointwise losses), a law for DPO and TDPO1.

Both sides share the context at every prefix position, so its log-ratios and KL cancel in DPO and TDPO1. TDPO2 stops
the gradient of the chosen KL, so moving the prefix z into the response adds alpha beta sigmoid(-beta margin) grad K(z).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny, twins
from support.scores import pair_scores
from support.twins import Gradient, Setting, close, gradient_of, moved, ours, row, sums, twin

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO, Normalise
from stepdpo.algo.dpo import Form as DPOForm
from stepdpo.algo.nca import NCA
from stepdpo.algo.orpo import ORPO
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.tdpo import TDPO, Form
from stepdpo.algo.wpo import WPO
from stepdpo.data.level import Instance, Prefix, Step


def both(algo: Any, level: Any, folder: Path, **more: Any) -> list[tuple[dict[str, float], Gradient]]:
    """With the prefix in the prompt, and in the response."""
    return [ours(Setting(algo, level(prefix=p), **more), folder / p.value) for p in (Prefix.prompt, Prefix.response)]


def minus(left: Gradient, right: Gradient) -> Gradient:
    return {name: left[name] - right[name] for name in left}


@pytest.mark.parametrize("level", [Step, Instance])
@pytest.mark.parametrize(
    "algo",
    [
        DPO(),
        DPO(label_smoothing=0.1),
        DPO(form=DPOForm.hinge),
        DPO(form=DPOForm.ipo),
        TDPO(form=Form.tdpo1),
        CPO(sft_weight=0.0),
    ],
    ids=["dpo", "smoothed", "hinge", "ipo", "tdpo1", "cpo"],
)
def test_it_changes_nothing_for_dpo_and_tdpo1(algo: Any, level: Any, tmp_path: Path) -> None:
    (prompt, prompt_gradient), (response, response_gradient) = both(algo, level, tmp_path)
    assert response["loss"] == pytest.approx(prompt["loss"], rel=1e-6)
    close(response_gradient, prompt_gradient)
    for name in ("rewards/margins", "rewards/accuracies"):
        assert response[name] == pytest.approx(prompt[name], rel=1e-6)
    assert response["logps/chosen"] < prompt["logps/chosen"] - 1


@pytest.mark.parametrize("level", [Step, Instance])
def test_tdpo2_gains_exactly_the_pull_on_the_prefix(level: Any, tmp_path: Path) -> None:
    alpha, beta = 0.5, 0.4
    (prompt, prompt_gradient), (response, response_gradient) = both(TDPO(alpha=alpha, beta=beta), level, tmp_path)
    assert response["loss"] == pytest.approx(prompt["loss"], rel=1e-6)
    assert response["kl/margin"] == pytest.approx(prompt["kl/margin"], rel=1e-5)

    setting = Setting(TDPO(), level(prefix=Prefix.prompt))
    seen = twin(setting, twins.tdpo2)
    z = seen.chosen.logratio - seen.rejected.logratio - alpha * (seen.rejected.kl - seen.chosen.kl)
    pulls = alpha * beta * torch.sigmoid(-beta * z.detach())
    reference, policy = (setting.make("sdpa").to(setting.dtype) for _ in range(2))
    moved(policy, setting.move)
    tokenizer = tiny.tokenizer()
    rows = [
        row(setting.template.render(p.question, (), tokenizer).text, p.prefix, False, tokenizer)
        for p in setting.preferences
    ]
    prefix_kl = sums(policy, reference, rows, tokenizer.pad_token_id).kl
    (pulls * prefix_kl).mean().backward()
    close(minus(response_gradient, prompt_gradient), gradient_of(policy), rtol=1e-5)


@pytest.mark.parametrize("level", [Step, Instance])
def test_tdpo2_gains_nothing_while_the_policy_is_the_reference(level: Any, tmp_path: Path) -> None:
    (_, prompt), (_, response) = both(TDPO(), level, tmp_path, move=0.0)
    close(response, prompt)


MEANS = [
    SimPO(), ORPO(), WPO(), CPO(), DPO(sft_weight=1.0), DPO(normalise=Normalise.mean),
    DPO(form=DPOForm.ipo, normalise=Normalise.mean),
]  # fmt: skip


@pytest.mark.parametrize("algo", MEANS, ids=["simpo", "orpo", "wpo", "cpo", "irpo", "dpo-mean", "ipo-mean"])
def test_a_loss_with_a_mean_changes_and_says_so(algo: Any, tmp_path: Path) -> None:
    """What `length_normalised` is for: a training that scores the prefix warns."""
    assert algo.length_normalised
    (prompt, prompt_gradient), (response, response_gradient) = both(algo, Step, tmp_path)
    assert abs(prompt["loss"] - response["loss"]) > 1e-5
    with pytest.raises(AssertionError, match="off"):
        close(response_gradient, prompt_gradient, rtol=1e-2)


@pytest.mark.parametrize("algo", [DPO(), TDPO(), NCA(), CPO(sft_weight=0.0)], ids=["dpo", "tdpo", "nca", "cpo"])
def test_a_loss_of_sums_says_that_too(algo: Any) -> None:
    assert not algo.length_normalised


def test_of_wpo_the_weight_alone_changes(tmp_path: Path) -> None:
    (prompt, _), (response, _) = both(WPO(), Step, tmp_path)
    assert response["rewards/margins"] == pytest.approx(prompt["rewards/margins"], rel=1e-6)
    assert abs(response["weight"] - prompt["weight"]) > 1e-4


def test_the_margin_of_simpo_may_change_its_sign() -> None:
    """Steps of 6 and 2 tokens with means of -1 and -1.2 nats: 0.2 apart. With ten shared tokens of -0.1 before each,

    the means are -7 / 16 and -3.4 / 12, and the longer step, whose sum is the lower one, is behind by 0.154.
    """
    step = pair_scores([-6.0], [-2.4], tokens=[6], rejected_tokens=[2])
    whole = pair_scores([-7.0], [-3.4], tokens=[16], rejected_tokens=[12])
    margins = [out.chosen_rewards_B - out.rejected_rewards_B for out in map(SimPO(beta=1.0), (step, whole))]
    assert [float(m) for m in margins] == pytest.approx([0.2, -7 / 16 + 3.4 / 12])


def test_pointwise_losses_do_change(tmp_path: Path) -> None:
    """Else the comparisons above could not fail."""
    (prompt, prompt_gradient), (response, response_gradient) = both(NCA(), Step, tmp_path)
    assert abs(prompt["loss"] - response["loss"]) > 1e-3
    with pytest.raises(AssertionError, match="off"):
        close(response_gradient, prompt_gradient, rtol=1e-2)
