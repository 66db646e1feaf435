"""How an update is cut up never changes it: pieces, processes, recomputed activations, the reference's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.twins import Setting, close, gradient_of, ours, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.sft import SFT
from stepdpo.algo.tdpo import TDPO
from stepdpo.data.level import Instance, Step
from stepdpo.tokens.batch_sampler import micro_batches

MANY = tiny.PREFERENCES + tiny.PREFERENCES[:3]
"""Eight pairs."""


@pytest.mark.parametrize("algo", [DPO(), TDPO(), KTO(), SFT()], ids=lambda a: type(a).__name__)
def test_one_piece_is_eight(algo: Any, tmp_path: Path) -> None:
    """1 x 8 = 8 x 1 = a few of unequal size: means are over pairs, never over pieces or tokens."""
    setting = Setting(algo, Instance(), preferences=MANY)
    whole, gradient = ours(setting, tmp_path / "whole")
    for tokens in (1, 200):
        metrics, cut = ours(setting, tmp_path / str(tokens), tokens=tokens)
        assert metrics == pytest.approx(whole, rel=1e-6, abs=1e-9)
        close(cut, gradient)


@pytest.mark.parametrize("world", [2, 3, 8, 11])
def test_the_shares_of_all_processes_add_up(world: int, tmp_path: Path) -> None:
    """Eleven processes for eight pairs: three compute a stand-in of weight 0. The sum is the update."""
    setting = Setting(DPO(), Step(), preferences=MANY)
    _, gradient = ours(setting, tmp_path / "whole")
    with scoring(setting, tmp_path / "shares") as (done, material):
        ids = sorted(material.train)
        shares = [list(micro_batches(material.train, ids, 150, rank, world)) for rank in range(world)]
        shares = [[replace(p, batch=done.reference.attach_cached(p.batch, "train")) for p in share] for share in shares]
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for share in shares for p in share if p.weight for i in p.batch.pair_ids) == ids
        for piece in (p for share in shares for p in share):
            losses_B = done._losses(piece, None)[1].losses_B
            done.engine.backward(losses_B.sum() * (piece.weight / len(ids)), last=False)
        close(gradient_of(done.engine.model), gradient)


@pytest.mark.parametrize("algo", [DPO(), TDPO()], ids=lambda a: type(a).__name__)
def test_gradient_checkpointing_changes_nothing(algo: Any, tmp_path: Path) -> None:
    setting = Setting(algo, Instance())
    plain, gradient = ours(setting, tmp_path / "off")
    metrics, again = ours(setting, tmp_path / "on", gradient_checkpointing=True)
    assert metrics == pytest.approx(plain, rel=1e-9, abs=1e-12)
    close(again, gradient, rtol=1e-9)


def test_checkpointing_really_recomputes(tmp_path: Path) -> None:
    """The layers' forward runs twice; otherwise the test above would compare a thing with itself."""
    counts = {}
    for on in (False, True):
        with scoring(Setting(DPO(), Step()), tmp_path / str(on), gradient_checkpointing=on) as (done, material):
            calls: list[int] = []
            done.engine.model.model.layers[0].self_attn.register_forward_pre_hook(
                lambda *_, calls=calls: calls.append(1)
            )
            done.compute(done.inputs(material.train, [0, 1], "train"), learn=True)
            counts[on] = len(calls)
    assert counts == {False: 1, True: 2}
