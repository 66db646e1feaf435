"""The reference's scores are the same wherever they come from; kept ones are found, checked, refused and made again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny
from support.twins import Rows, Setting, close, gradient_of, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.tdpo import TDPO
from stepdpo.data.level import Instance, Step
from stepdpo.models import reference_cache as files
from stepdpo.models.attention.registry import register
from stepdpo.models.logprobs import HeadMemory
from stepdpo.models.lora import Lora
from stepdpo.models.reference_cache import ReferenceScores, write_shards
from stepdpo.models.scorer import Scorer
from stepdpo.runtime import artifact_cache
from stepdpo.tokens.batch_sampler import BatchSize, Group, micro_batches
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import TokenizedDataset, prepare
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import Device
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import CachedReference, OnlineReference, without_adapter
from stepdpo.training.step import TrainStep

LOSSES = [DPO(), TDPO(), KTO()]
NAMES = ["dpo", "tdpo", "kto"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


def read(folder: Path, name: str) -> ReferenceScores:
    files.seal(folder, name)
    assert files.verify(folder, name) == ""
    return ReferenceScores.of(folder, name)


# Files


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("keep_hidden", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_stored_scores_are_the_direct_ones(
    keep_hidden: bool, ranks: int, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file a pair lies in and whatever batch asks for it; a file is full after a few pairs."""
    monkeypatch.setattr(files, "FULL", 2000)
    setting = Setting(TDPO(), Instance(), move=0.0)
    with scoring(setting, tmp_path / "run") as (done, material):
        trees, ids = material.train, sorted(material.train)
        for rank in range(ranks):
            share = micro_batches(trees, ids, 100, rank, ranks, group)
            write_shards(done.engine.score, rank, share, trees, keep_hidden, tmp_path, "train")
        stored = read(tmp_path, "train")
        assert len(stored.paths) >= (ranks + 1 if keep_hidden and ranks < 5 else ranks)
        assert stored.names == ({"hidden"} if keep_hidden else set())
        with torch.no_grad():
            for asked in ([3, 0], [1], [4, 2, 3, 1, 0]):
                batch = collate([trees[i] for i in asked])
                known = stored.attach(batch)
                scores = done.engine.score(batch)
                logps_R, hidden_TH = scores.logps_R, scores.hidden_TH
                torch.testing.assert_close(known.reference_logps_R, logps_R)
                if not keep_hidden:
                    assert known.reference_hidden_TH is None
                    continue
                torch.testing.assert_close(known.reference_hidden_TH, hidden_TH)
                kl_R = done.engine.score(known)[1]
                torch.testing.assert_close(kl_R, torch.zeros_like(kl_R), rtol=0, atol=1e-10)


def test_a_process_without_pairs_writes_an_empty_file(tmp_path: Path) -> None:
    """More processes than pairs: stand-ins are scored, and not stored."""
    setting = Setting(TDPO(), Step(), preferences=tiny.PREFERENCES[:1], move=0.0)
    with scoring(setting, tmp_path / "run") as (done, material):
        for rank in range(2):
            share = micro_batches(material.train, [0], 100, rank, 2)
            write_shards(done.engine.score, rank, share, material.train, True, tmp_path, "train")
        stored = read(tmp_path, "train")
        assert len(stored.paths) == 2
        known = stored.attach(collate([material.train[0]]))
        assert known.reference_logps_R is not None
        assert known.reference_logps_R.shape == (2,)
        with pytest.raises(KeyError, match="no reference scores"):
            stored.attach(replace(collate([material.train[0]]), pair_ids=(7,)))


def test_damage_is_told_by_name(tmp_path: Path) -> None:
    setting = Setting(DPO(), Step(), move=0.0)
    with scoring(setting, tmp_path / "run") as (done, material):
        share = list(micro_batches(material.train, [0, 1], 100, 0, 1))
        write_shards(done.engine.score, done.engine.rank, share, material.train, False, tmp_path, "train")
    assert files.verify(tmp_path, "train") == "train.json is missing"
    files.seal(tmp_path, "train")
    path = tmp_path / "train-00000-0000.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(content)
        assert files.verify(tmp_path, "train") == f"{path.name} has changed since it was written"
    path.unlink()
    assert files.verify(tmp_path, "train") == f"{path.name} is missing"


# The cache


def kept(folder: Path, setting: Setting, weights: str = "one", **more: Any) -> tuple[TrainStep, TokenizedDataset, str]:
    """A run that wants kept scores, up to its first update."""
    material = prepare(
        Rows(setting.preferences), setting.level, setting.template, setting.algo.needs, tiny.tokenizer(),
        Lengths(max_length=512), folder,
    )  # fmt: skip

    def build(_: torch.dtype, gather: Any) -> Scorer:
        return Scorer(setting.make(register()).to(setting.dtype), "kl" in setting.algo.needs, gather)

    with Local(device=Device.cpu, **more).open(build, AdamW()) as engine:
        references = CachedReference(
            engine, setting.algo.needs, BatchSize(tokens=1000), {"weights": weights, "attention": "runs"}
        )
        done = TrainStep(engine, setting.algo, BatchSize(tokens=1000), references)
        done.prepare(material)
        return done, material, weights


def entries(home: Path) -> set[str]:
    return {path.name for path in (home / "reference").iterdir()}


@pytest.mark.parametrize("algo", LOSSES, ids=NAMES)
def test_the_second_run_makes_nothing(
    algo: Any, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = Setting(algo, Step())
    kept(tmp_path, setting)
    assert "pairs scored" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (home / "reference").rglob("*")}
    kept(tmp_path, setting)
    said = capsys.readouterr().out
    assert "scores of 5 train pairs from" in said
    assert "scored" not in said.replace("scores of", "")
    assert before == {path: path.stat().st_mtime_ns for path in (home / "reference").rglob("*")}


def test_anything_else_is_another_entry(home: Path, tmp_path: Path) -> None:
    """Another model, template, level, loss that wants more, or data: nothing is taken for what it is not."""
    settings = [
        (Setting(DPO(), Step()), "one"),
        (Setting(DPO(), Step()), "two"),
        (Setting(DPO(), Step(), template=tiny.DEEPSEEK), "one"),
        (Setting(DPO(), Instance()), "one"),
        (Setting(TDPO(), Step()), "one"),
        (Setting(DPO(), Step(), preferences=tiny.PREFERENCES[:4]), "one"),
    ]
    for number, (setting, weights) in enumerate(settings, start=1):
        kept(tmp_path, setting, weights)
        assert len(entries(home)) == number
    kept(tmp_path, Setting(DPO(beta=0.1), Step()))
    assert len(entries(home)) == len(settings)


@pytest.mark.parametrize("tamper", ["value", "byte", "cut", "gone", "list"])
def test_a_tampered_cache_is_found_and_made_again(
    tamper: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one whose list was made to fit: a few pairs are scored again."""
    setting = Setting(TDPO(), Step())
    kept(tmp_path, setting)
    (entry,) = (home / "reference").iterdir()
    good = {path.name: path.read_bytes() for path in entry.iterdir()}
    path = entry / "train-00000-0000.safetensors"
    if tamper == "value":
        tensors = load_file(path)
        tensors["logps"] = tensors["logps"] + 0.5
        save_file(tensors, path)
        files.seal(entry, "train")
    elif tamper == "byte":
        path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    elif tamper == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif tamper == "gone":
        path.unlink()
    else:
        (entry / "train.json").write_text("{")
    capsys.readouterr()
    kept(tmp_path, setting)
    assert "made again" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == good


def test_a_stopped_pass_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Ctrl-C, or a full disc."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files._Shard, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, Setting(DPO(), Step()))
    assert not list((home / "reference").iterdir())


def test_scores_of_another_model_under_the_same_name_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights changed in place, say: the key is the same, the scores are not."""
    kept(tmp_path, Setting(DPO(), Step()))
    kept(tmp_path, Setting(DPO(), Step(), make=lambda attention: tiny.model(attention, seed=1)))
    assert "scores some pairs otherwise" in capsys.readouterr().out


def test_the_cache_touches_no_chance(tmp_path: Path) -> None:
    """The state of every generator, and the order of the batches, are the same with a cache, without, and online."""

    def states() -> tuple[Any, ...]:
        import numpy as np

        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    kept(tmp_path, Setting(TDPO(), Step()))
    setting = Setting(TDPO(), Step(), make=_no_seed)
    with_seed = []
    for fresh in (False, True):
        if fresh:
            artifact_cache.discard(artifact_cache.root() / "reference")
        torch.manual_seed(7)
        before = states()
        kept(tmp_path, setting)
        with_seed.append(states())
        assert states() == before


_MODEL = tiny.model(register())


def _no_seed(_: str) -> Any:
    """The same weights without touching a generator."""
    import copy

    return copy.deepcopy(_MODEL)


# Three sources, one result


@pytest.mark.parametrize("algo", LOSSES, ids=NAMES)
@pytest.mark.parametrize("level", [Step(), Instance()], ids=["step", "instance"])
def test_online_equals_cache(algo: Any, level: Any, tmp_path: Path) -> None:
    setting = Setting(algo, level)
    with scoring(setting, tmp_path) as (done, material):
        ids = sorted(material.train)
        wanted = done.compute(done.inputs(material.train, ids, "train"), learn=True)
        gradient = gradient_of(done.engine.model)
        done.engine.scorer.zero_grad()
        second = done.engine.build_reference(
            lambda _, gather: Scorer(setting.make(register()).to(setting.dtype), False, gather)
        )
        online = TrainStep(done.engine, algo, BatchSize(tokens=300), OnlineReference(second, "kl" in algo.needs))
        online.prepare(material)
        got = online.compute(online.inputs(material.train, ids, "train"), learn=True)
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        close(gradient_of(done.engine.model), gradient)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("algo", LOSSES, ids=NAMES)
def test_adapter_off_equals_cache(algo: Any, head: bool, checkpointing: bool, tmp_path: Path) -> None:
    """The reference of a policy with adapters is the policy without them; the base's head is shared, not copied."""
    setting = Setting(algo, Instance(), make=lambda attention: Lora(rank=2, head=head).attach(tiny.model(attention)))
    with scoring(setting, tmp_path, gradient_checkpointing=checkpointing) as (done, material):
        ids = sorted(material.train)
        assert done.engine.scorer.reference_head_VH is None
        engine = done.engine
        with torch.no_grad():  # back to the base, which the twins' helper moved too
            fresh = tiny.model(register()).state_dict()
            for name, value in engine.model.state_dict().items():
                if "lora" not in name:
                    value.copy_(fresh[name.replace(".base_layer", "")])
        wanted = done.compute(done.inputs(material.train, ids, "train"), learn=True)
        trained = {n: p.grad.clone() for n, p in engine.model.named_parameters() if p.requires_grad}
        engine.scorer.zero_grad()

        off = TrainStep(
            engine, algo, BatchSize(tokens=300), OnlineReference(without_adapter(engine), "kl" in algo.needs)
        )
        off.prepare(material)
        got = off.compute(off.inputs(material.train, ids, "train"), learn=True)
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        close({n: p.grad for n, p in engine.model.named_parameters() if p.requires_grad}, trained)
        assert got["loss"] != pytest.approx(DPO_START, abs=1e-6)


DPO_START = 0.6931471805599453


@pytest.mark.parametrize("head_memory", HeadMemory)
def test_kept_distributions_change_nothing(head_memory: HeadMemory, tmp_path: Path) -> None:
    setting = Setting(TDPO(), Instance())
    with scoring(setting, tmp_path) as (done, material):
        ids = sorted(material.train)
        wanted = done.compute(done.inputs(material.train, ids, "train"), learn=True)
        gradient = gradient_of(done.engine.model)
        done.engine.scorer.zero_grad()
        done.engine.scorer.head_memory = head_memory
        assert done.compute(done.inputs(material.train, ids, "train"), learn=True) == pytest.approx(
            wanted, rel=1e-9, abs=1e-12
        )
        close(gradient_of(done.engine.model), gradient, rtol=1e-9)


def test_what_was_kept_says_what_it_was_made_from(home: Path, tmp_path: Path) -> None:
    kept(tmp_path, Setting(DPO(), Step()), weights="mine")
    (entry,) = (home / "reference").iterdir()
    key = json.loads((entry / artifact_cache.KEY).read_text())
    assert key["weights"] == "mine"
    assert key.keys() == {"weights", "attention", "format", "numbers", "hidden", "tokens", "data"}
