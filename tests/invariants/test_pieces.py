"""How an update is cut up never changes it: pieces, processes, recomputed activations, the reference's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from twins import Setting, close, gradient_of, ours, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.sft import SFT
from stepdpo.algo.tdpo import TDPO
from stepdpo.collate import collate
from stepdpo.feed import pieces
from stepdpo.level import Instance, Step
from stepdpo.model.reference import ReferenceScores, write_shard

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
        known = done.reference["train"]
        shares = [list(pieces(material.train, ids, 150, rank, world)) for rank in range(world)]
        shares = [[replace(p, batch=known.attach(p.batch)) for p in share] for share in shares]
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for share in shares for p in share if p.weight for i in p.batch.pair_ids) == ids
        for piece in (p for share in shares for p in share):
            losses_B = done.loss(done._scores(piece)).losses_B
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
            done.passes(material.train, [0, 1], "train", learn=True)
            counts[on] = len(calls)
    assert counts == {False: 1, True: 2}


@pytest.mark.parametrize("keep_hidden", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_stored_reference_scores_are_the_direct_ones(keep_hidden: bool, shards: int, tmp_path: Path) -> None:
    """Whichever file a pair lies in and whatever batch asks for it; five files for five pairs leave none empty."""
    setting = Setting(TDPO(), Instance(), move=0.0)
    with scoring(setting, tmp_path / "run") as (done, material):
        trees, ids = material.train, sorted(material.train)
        paths = [tmp_path / f"{rank}.safetensors" for rank in range(shards)]
        for rank, path in enumerate(paths):
            write_shard(done.engine, pieces(trees, ids, 100, rank, shards), trees, keep_hidden, path)
        with ReferenceScores(paths) as stored, torch.no_grad():
            assert stored.has_hidden == keep_hidden
            for asked in ([3, 0], [1], [4, 2, 3, 1, 0]):
                batch = collate([trees[i] for i in asked])
                known = stored.attach(batch)
                logps_B2, _, _, hidden_TH = done.engine.score(batch)
                torch.testing.assert_close(known.reference_logps_B2, logps_B2)
                if keep_hidden:
                    torch.testing.assert_close(known.reference_hidden_TH, hidden_TH)
                    kl_B2 = done.engine.score(known)[1]
                    torch.testing.assert_close(kl_B2, torch.zeros_like(kl_B2), rtol=0, atol=1e-10)
                else:
                    assert known.reference_hidden_TH is None


def test_a_process_without_pairs_writes_an_empty_shard(tmp_path: Path) -> None:
    """More processes than pairs: stand-ins are scored, and not stored."""
    setting = Setting(TDPO(), Step(), preferences=tiny.PREFERENCES[:1], move=0.0)
    with scoring(setting, tmp_path / "run") as (done, material):
        paths = [tmp_path / f"{rank}.safetensors" for rank in range(2)]
        for rank, path in enumerate(paths):
            write_shard(done.engine, pieces(material.train, [0], 100, rank, 2), material.train, True, path)
        with ReferenceScores(paths) as stored:
            assert list(stored.place) == [0]
            assert [len(logps) for logps in stored.logps] == [1, 0]
            assert stored.attach(collate([material.train[0]])).reference_hidden_TH is not None


def test_the_store_is_gone_afterwards(tmp_path: Path) -> None:
    with scoring(Setting(DPO(), Step()), tmp_path):
        assert list((tmp_path / "reference").iterdir())
    assert not (tmp_path / "reference").exists()


def test_a_loss_without_a_reference_stores_none(tmp_path: Path) -> None:
    with scoring(Setting(SFT(), Step()), tmp_path) as (done, _):
        assert done.reference == {}
        assert not (tmp_path / "reference").exists()
