"""Before the first update the policy is the reference: what every loss, reward and gradient is there."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.twins import Setting, close, ours, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.tdpo import TDPO, Form
from stepdpo.data.level import Instance, Step

LOSSES = {
    "dpo": (DPO(), log(2)),
    "tdpo1": (TDPO(form=Form.tdpo1), log(2)),
    "tdpo2": (TDPO(), log(2)),
    "nca": (NCA(), 2 * log(2)),
    "kto": (KTO(desirable=1.5, undesirable=0.7), (1.5 + 0.7) / 2),
}


@pytest.mark.parametrize("level", [Step(), Instance()], ids=["step", "instance"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_rewards(name: str, level: Any, tmp_path: Path) -> None:
    """In single precision, as a run on the CPU has it, and all pairs at once or one by one."""
    algo, expected = LOSSES[name]
    for tokens in (1, 100_000):
        setting = Setting(algo, level, move=0.0, dtype=torch.float32)
        metrics, _ = ours(setting, tmp_path / str(tokens), tokens=tokens)
        assert metrics["loss"] == pytest.approx(expected, abs=1e-4)
        for side in ("chosen", "rejected", "margins"):
            assert metrics[f"rewards/{side}"] == pytest.approx(0, abs=1e-4)
        assert metrics["pairs"] == len(tiny.PREFERENCES)


@pytest.mark.parametrize("form", Form)
def test_tdpo_starts_with_the_gradient_of_dpo(form: Form, tmp_path: Path) -> None:
    """On sure pairs, since TDPO knows no smoothing."""
    sure = [p for p in tiny.PREFERENCES if p.confidence == 1]
    gradients = [
        ours(Setting(algo, Instance(), preferences=sure, move=0.0), tmp_path / str(n))[1]
        for n, algo in enumerate((TDPO(form=form), DPO()))
    ]
    close(gradients[0], gradients[1])


def test_one_update_prefers_the_chosen_sides(tmp_path: Path) -> None:
    """Down the gradient the loss falls and every margin grows from 0."""
    with scoring(Setting(DPO(), Step(), move=0.0), tmp_path) as (done, material):
        ids = sorted(material.train)
        before = done.compute(done.inputs(material.train, ids, "train"), learn=True)
        norm = done.engine.step(lr=1e-3)
        after = done.evaluate(material.train, ids, "train")
    assert norm > 0
    assert after["loss"] < before["loss"]
    assert before["rewards/margins"] == pytest.approx(0, abs=1e-9)
    assert after["rewards/accuracies"] == 1.0
