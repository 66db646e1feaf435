"""A loss of somebody else's that is not what it should be is refused before it trains something else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from omegaconf import OmegaConf
from support import tiny
from support.options import FEW, LEVELS
from support.twins import Rows

from stepdpo.algo.sft import SFT
from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.load import Pretrained
from stepdpo.models.scorer import Scorer
from stepdpo.runtime.tracking import NoTracking
from stepdpo.tokens.batch_sampler import BatchSize
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.pair_scores import LossOutput, PairScores
from stepdpo.tokens.preprocess import prepare
from stepdpo.training.config import Training
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import Device
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import NoReference
from stepdpo.training.step import TrainStep
from stepdpo.training.trainer import _check_needs, train


@dataclass(frozen=True)
class Averaged:
    """SFT, but averaged over the batch already."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scores: PairScores) -> LossOutput:
        out = SFT()(scores)
        return LossOutput(out.losses_B.mean(), out.chosen_rewards_B, out.rejected_rewards_B)


@dataclass(frozen=True)
class Asking:
    """SFT that asks for more."""

    needs: frozenset[str]

    def __call__(self, scores: PairScores) -> LossOutput:
        return SFT()(scores)


def test_a_loss_that_is_averaged_already(tmp_path: Path) -> None:
    algo = Averaged()
    tokenized = prepare(
        Rows(FEW), LEVELS["step"], tiny.CHAT, algo.needs, tiny.tokenizer(), Lengths(max_length=512), tmp_path
    )

    def build(_: torch.dtype, gather: Any) -> Scorer:
        return Scorer(tiny.model(register(Attention.auto)), False, gather)

    with Local(device=Device.cpu).open(build, AdamW()) as engine:
        train_step = TrainStep(engine, algo, BatchSize(tokens=100_000), NoReference())
        with pytest.raises(UserError, match=r"shape \(\) for 3 pairs; expected one number a pair"):
            train_step.compute(train_step.inputs(tokenized.train, sorted(tokenized.train), "train"), learn=True)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("rejcted", "names 'rejcted', which nothing provides; did you mean 'rejected'?"),
        ("unpaired labels", "names 'labels' without 'steps', which that rests on: name both"),
        ("group reference", "names 'group' without 'steps', which that rests on: name both"),
        ("unpaired values", "names 'values' without 'steps', which that rests on: name both"),
        ("rejected kl", "names 'kl' without 'reference', which that rests on: name both"),
        ("rest", "names 'rest' without 'rejected', which that rests on: name both"),
        ("rejected reference steps kl", "names 'kl' and 'steps', which do not go together"),
        ("rejected unpaired", "names 'unpaired' and 'rejected', which do not go together"),
    ],
)
def test_needs_that_cannot_be_met(needs: str, said: str, tmp_path: Path) -> None:
    """Before a model is loaded: the one named here does not exist."""
    spec = Training(
        algo=Asking(frozenset(needs.split())), level=LEVELS["step"], template=tiny.CHAT,
        model=Pretrained(path="nowhere"), dataset=Rows(FEW), optim=AdamW(), engine=Local(device=Device.cpu),
        track=NoTracking(),
    )  # fmt: skip
    with pytest.raises(UserError, match=re.escape(said)):
        train(spec, tmp_path)


def test_the_needs_of_every_shipped_loss_can_be_met() -> None:
    for path in sorted((conf() / "algo").glob("*.yaml")):
        _check_needs(build(OmegaConf.load(path)).needs)
