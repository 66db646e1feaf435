"""A frozen base that is held otherwise than it was loaded: what is trained beside it, and what its reference is."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from support.commands import metrics
from support.trainings import Job, Runs
from support.twins import Setting, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.tdpo import TDPO
from stepdpo.data.level import Instance
from stepdpo.models.lora import Lora
from stepdpo.models.quantise import Nf4, quantised
from stepdpo.runtime import artifact_cache

TOLD = "bitsandbytes is not installed: pip install 'stepdpo[qlora]'"
EARLIER = ("model", "checkpoints/step-000004")
LEARNS = ("adapter.rank=4", "optim.lr=1e-2", "log_every=4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str], blocks_model: Path) -> Runs:
    words = [w for w in pairs_words if not w.startswith("log_every")]
    return Runs(tmp_path_factory.mktemp("held"), [*words, "model=pretrained", f"model.path={blocks_model}", *LEARNS])


@pytest.fixture(scope="module")
def whole(runs: Runs) -> Path:
    """Six updates beside a base in 4 bits, the reference in the cache."""
    pytest.importorskip("bitsandbytes", reason=TOLD)
    pytest.importorskip("peft")
    return runs.local("whole", "adapter=qlora")


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def assert_learns(folder: Path) -> None:
    """From log 2, before the first update, on the pairs it trains on."""
    lines = metrics(folder)
    assert lines[0]["heldout/loss"] == pytest.approx(log(2), abs=1e-6)
    assert [line["loss"] for line in lines if "loss" in line][-1] < log(2) - 0.05


def rounded(step: float) -> tuple[str, str]:
    return "adapter=lora", f"adapter.base={{_target_:tests.support.held.Rounded,step:{step}}}"


def test_a_base_that_is_held_as_it_was_is_plain_lora(runs: Runs) -> None:
    """Bit for bit, without bitsandbytes."""
    pytest.importorskip("peft")
    plain, same = runs.local("plain", "adapter=lora"), runs.local("same", *rounded(0.0))
    assert metrics(same) == metrics(plain)
    assert weights(same) == weights(plain)


def test_a_rounded_base_is_its_own_reference(runs: Runs) -> None:
    """Loss log 2 and rewards 0 before the first update, by the cache and with the adapter off; the base is not."""
    pytest.importorskip("peft")
    lines = {}
    for mode in ("cache", "adapter_off", "online"):
        lines[mode] = metrics(runs.local(f"rounded-{mode}", *rounded(0.05), f"reference={mode}"))
        first = lines[mode][0]
        assert first["heldout/loss"] == pytest.approx(log(2), abs=1e-6), mode
        assert first["heldout/rewards/margins"] == pytest.approx(0, abs=1e-5), mode
        for ours, theirs in zip(lines["cache"], lines[mode], strict=True):
            assert theirs == pytest.approx(ours, rel=2e-5, abs=5e-5), mode
    other = metrics(runs.local("original", "adapter=lora"))
    assert abs(other[0]["heldout/logps/chosen"] - lines["cache"][0]["heldout/logps/chosen"]) > 1e-2


def test_it_learns_from_log_2(whole: Path) -> None:
    assert_learns(whole)


def test_where_the_reference_comes_from_never_shows(runs: Runs, whole: Path) -> None:
    for mode in ("online", "adapter_off"):
        lines = metrics(runs.local(f"qlora-{mode}", "adapter=qlora", f"reference={mode}", "save_every=0"))
        for ours, theirs in zip(metrics(whole), lines, strict=True):
            assert theirs == pytest.approx(ours, rel=2e-5, abs=5e-5), mode


def test_scores_are_kept_under_the_quantisation(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 16-bit base, of one with and one without double quantisation: six entries for two sets of pairs."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason=TOLD)
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path))
    for number, words in enumerate(
        (("adapter=lora",), ("adapter=qlora",), ("adapter=qlora", "adapter.base.double=false"))
    ):
        runs.local(f"kept-{number}", *words, "max_steps=1", "save_every=0")
    keys = [json.loads((entry / artifact_cache.KEY).read_text()) for entry in (tmp_path / "reference").iterdir()]
    assert len(keys) == 6
    version = bitsandbytes.__version__
    held = {json.dumps(key.get("base"), sort_keys=True) for key in keys}
    wanted = {"bitsandbytes": version, "block": 64, "compute": "float32", "type": "nf4"}
    assert held == {"null", *(json.dumps({**wanted, "double": d}, sort_keys=True) for d in (True, False))}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("algo", [DPO(), TDPO()], ids=["dpo", "tdpo"])
def test_the_base_is_the_same_to_the_byte_after_training(algo: Any, recompute: bool, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason=TOLD)

    def make(attention: str) -> Any:
        model = tiny.model(attention, hidden=64)
        Nf4().quantise(model, torch.device("cpu"))
        return Lora(rank=2, head=True, base=Nf4()).attach(model)

    setting = Setting(algo, Instance(), make=make, dtype=torch.float32)
    with scoring(setting, tmp_path, gradient_checkpointing=recompute) as (done, material):
        model = done.engine.model

        def state() -> dict[str, bytes]:
            frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
            for name, layer in quantised(model).items():
                frozen |= {f"{name} {k}": v for k, v in layer.weight.quant_state.as_dict(packed=True).items()}
            return {name: value.numpy().tobytes() for name, value in frozen.items()}

        before = state()
        trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        for _ in range(3):
            done.compute(done.inputs(material.train, sorted(material.train), "train"), learn=True)
            done.engine.step(1e-2)
        assert state() == before
        assert len(before) > 3 * len(trained) / 2
        assert all(not torch.equal(p, trained[n]) for n, p in model.named_parameters() if p.requires_grad)


def test_its_files_say_what_it_is(runs: Runs, whole: Path, blocks_model: Path) -> None:
    from stepdpo.models.fingerprint import fingerprint

    for folder in (whole / "model", whole / "checkpoints" / "step-000002"):
        told = json.loads((folder / "adapter" / "base.json").read_text())
        card = json.loads((folder / "stepdpo.json").read_text())
        assert (card["base"], card["quantised"]) == ("dequantised", told)
        assert told["weights"] == fingerprint(blocks_model)
        assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float32}
        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert {value.dtype for value in adapter.values()} == {torch.float32}
    state = torch.load(whole / "checkpoints" / "step-000004" / "state" / "optimizer.pt", weights_only=True)
    assert all(".lora_" in name for name in state["model"])


def test_merging_into_the_original_where_it_is_asked_for(runs: Runs, whole: Path, blocks_model: Path) -> None:
    """Trained alike, saved otherwise: W_o + s B A from the files, s = 32 / 4."""
    folder = runs.local("into-original", "adapter=qlora", "adapter.base.merge=original") / "model"
    assert json.loads((folder / "stepdpo.json").read_text())["base"] == "original"
    assert metrics(folder.parent) == metrics(whole)
    found, plain = load_file(folder / "model.safetensors"), load_file(blocks_model / "model.safetensors")
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{part}.weight"].double() for part in ("A", "B"))
    wanted = plain[f"{name}.weight"].double() + 8.0 * up @ down
    torch.testing.assert_close(found[f"{name}.weight"].double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(
        load_file(whole / "model" / "model.safetensors")[f"{name}.weight"].double(), wanted, atol=1e-3
    )


def test_a_resumed_run_is_the_same_run(runs: Runs, whole: Path) -> None:
    folder = runs.cut("cut", "whole", *EARLIER)
    assert runs.go_on(folder) == (0, "")
    assert metrics(folder) == metrics(whole)
    assert weights(folder) == weights(whole)


def test_sixteen_bits_on_a_cpu(runs: Runs) -> None:
    """As on a GPU: the base computes in bfloat16, adapters learn in float32, what is merged is saved in bfloat16."""
    pytest.importorskip("bitsandbytes", reason=TOLD)
    words = ("adapter=qlora", "adapter.head=true", "algo=tdpo", "engine.dtype=bfloat16")
    folder = runs.local("bf16", *words)
    assert_learns(folder)
    model = load_file(folder / "model" / "model.safetensors")
    adapter = load_file(folder / "model" / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in model.values()} == {torch.bfloat16}
    assert {value.dtype for value in adapter.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_zero_follows_one_process_and_resumes(runs: Runs, whole: Path) -> None:
    """Two processes at stages 0 to 2, and one in bfloat16; what was cut off at stage 1 goes on to the same bytes."""
    jobs = []
    for stage in (0, 1, 2):
        runs.write(f"zero-{stage}", "adapter=qlora", "engine=zero", f"engine.stage={stage}", "engine.processes=2")
        jobs.append(Job(f"zero-{stage}"))
    runs.write("zero-cut", "adapter=qlora", "engine=zero", "engine.stage=1", "engine.processes=2")
    runs.write(
        "zero-bf16", "adapter=qlora", "engine=zero", "engine.stage=1", "engine.processes=2", "engine.dtype=bfloat16"
    )
    done = runs.together([*jobs, Job("zero-cut", of="zero-1", gone=EARLIER), Job("zero-bf16")])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for stage in (0, 1, 2):
        for ours, theirs in zip(metrics(whole), metrics(runs.root / f"zero-{stage}"), strict=True):
            assert theirs == pytest.approx(ours, rel=2e-4, abs=2e-4), stage
    assert metrics(runs.root / "zero-cut") == metrics(runs.root / "zero-1")
    assert weights(runs.root / "zero-cut") == weights(runs.root / "zero-1")
    assert_learns(runs.root / "zero-bf16")
