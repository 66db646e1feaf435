"""Training that starts from an adapter: its reference is the base with that adapter, wherever the scores come from."""

from __future__ import annotations

import json
import shutil
from math import log
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import metrics
from support.trainings import Job, Runs

from stepdpo.runtime import artifact_cache

pytest.importorskip("peft")
MODES = ("cache", "online", "adapter_off")
EARLIER = ("model", "checkpoints/step-000004")


QLORA = pytest.param("qlora", marks=[pytest.mark.slow, pytest.mark.exhaustive])


@pytest.fixture(scope="module", params=["lora", QLORA])
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str], blocks_model: Path
) -> Runs:
    """Below its root a first training, `sft`; the others start from its adapter."""
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'stepdpo[qlora]'")
    root = tmp_path_factory.mktemp(request.param)
    common = [*pairs_words, "model=pretrained", f"model.path={blocks_model}", f"adapter={request.param}"]
    learns = ("optim.lr=1e-2", "save_every=0", "max_steps=3")
    Runs(root, common).local("sft", "algo=sft", "adapter.rank=4", "adapter.head=true", *learns)
    return Runs(root, [*common, f"adapter.start={root / 'sft' / 'model' / 'adapter'}", "optim.lr=5e-3"])


@pytest.fixture(scope="module")
def whole(runs: Runs) -> Path:
    return runs.local("whole", "algo=tdpo", "reference=adapter_off")


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("algo", ["dpo", "tdpo"])
def test_the_three_references_are_one_trajectory(algo: str, runs: Runs, whole: Path) -> None:
    """From log 2, with margins and KL of 0; the adapter on the head takes part."""
    lines = {m: metrics(runs.local(f"{algo}-{m}", f"algo={algo}", f"reference={m}", "save_every=0")) for m in MODES}
    for mode in MODES:
        first = lines[mode][0]
        assert first["heldout/loss"] == pytest.approx(log(2), abs=1e-6), mode
        assert first["heldout/rewards/margins"] == pytest.approx(0, abs=1e-5), mode
        if algo == "tdpo":
            divergences = [value for name, value in first.items() if "/kl/" in name]
            assert len(divergences) > 1
            assert divergences == pytest.approx([0.0] * len(divergences), abs=1e-5), mode
        for ours, theirs in zip(lines["cache"], lines[mode], strict=True):
            assert theirs == pytest.approx(ours, rel=2e-5, abs=5e-5), mode
    assert [line["loss"] for line in lines["cache"] if "loss" in line][-1] < log(2) - 0.05
    began = metrics(runs.root / "sft")[0]["heldout/logps/chosen"]  # of the bare base
    assert lines["cache"][0]["heldout/logps/chosen"] > began + 0.1


def test_the_bare_base_is_the_reference_where_it_is_named(runs: Runs, blocks_model: Path) -> None:
    lines = metrics(runs.local("bare", "algo=dpo", f"reference_model={blocks_model}", "max_steps=1", "save_every=0"))
    assert abs(lines[0]["heldout/loss"] - log(2)) > 1e-3


def test_what_is_saved_is_the_base_with_the_trained_adapter(runs: Runs, whole: Path, blocks_model: Path) -> None:
    """W + s B A with s = 32 / 4, the frozen copy neither merged nor saved; W as the first training merged into it."""
    trained, started = (
        load_file(f / "model" / "adapter" / "adapter_model.safetensors") for f in (whole, runs.root / "sft")
    )
    assert trained.keys() == started.keys()
    merged, before = (load_file(f / "model" / "model.safetensors") for f in (whole, runs.root / "sft"))
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head"):
        update, first = (
            8.0
            * adapter[f"base_model.model.{name}.lora_B.weight"].double()
            @ adapter[f"base_model.model.{name}.lora_A.weight"].double()
            for adapter in (trained, started)
        )
        assert (update - first).abs().max() > 1e-3, name
        base = before[f"{name}.weight"].double() - first  # W, or what the 4-bit codes say
        torch.testing.assert_close(merged[f"{name}.weight"].double(), base + update, rtol=1e-5, atol=1e-5)
    state = torch.load(whole / "checkpoints" / "step-000004" / "state" / "optimizer.pt", weights_only=True)
    assert all(".lora_" in name and ".default." in name for name in state["model"])


def test_a_resumed_run_is_the_same_run(runs: Runs, whole: Path) -> None:
    folder = runs.cut("cut", "whole", *EARLIER)
    assert runs.go_on(folder) == (0, "")
    assert metrics(folder) == metrics(whole)
    assert weights(folder) == weights(whole)


def test_another_start_is_not_resumed_from_nor_scored_alike(runs: Runs, whole: Path, tmp_path: Path) -> None:
    """The bytes of the start are in the checkpoint and in the key of the kept scores."""
    moved = Path(shutil.copytree(runs.root / "sft" / "model" / "adapter", tmp_path / "moved"))
    adapter = load_file(moved / "adapter_model.safetensors")
    save_file({name: value * 1.01 for name, value in adapter.items()}, moved / "adapter_model.safetensors")
    folder = runs.cut("elsewhere", "whole", *EARLIER)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace(str(runs.root / "sft" / "model" / "adapter"), str(moved)))
    code, said = runs.go_on(folder)
    assert (code, "adapter.start: the files have changed since the run was started" in said) == (2, True), said
    entries = artifact_cache.root() / "reference"

    def starts() -> set[str]:
        return {json.loads((entry / artifact_cache.KEY).read_text()).get("start", "") for entry in entries.iterdir()}

    known = starts()
    lines = metrics(runs.local("moved", "algo=dpo", "max_steps=1", "save_every=0", f"adapter.start={moved}"))
    assert lines[0]["heldout/loss"] == pytest.approx(log(2), abs=1e-6)
    assert len(starts() - known) == 1


@pytest.mark.slow
def test_zero_follows_one_process_and_resumes(runs: Runs, whole: Path) -> None:
    """Two processes, at every stage that the adapter allows; cut off at stage 2, to the same bytes."""
    stages = (0, 1, 2) if "qlora" in runs.root.name else (0, 1, 2, 3)
    words = ("algo=tdpo", "reference=adapter_off", "engine=zero", "engine.processes=2")
    for stage in stages:
        runs.write(f"zero-{stage}", *words, f"engine.stage={stage}")
    runs.write("zero-cut", *words, "engine.stage=2")
    done = runs.together([*(Job(f"zero-{s}") for s in stages), Job("zero-cut", of="zero-2", gone=EARLIER)])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for stage in stages:
        for ours, theirs in zip(metrics(whole), metrics(runs.root / f"zero-{stage}"), strict=True):
            assert theirs == pytest.approx(ours, rel=2e-4, abs=2e-4), stage
    assert metrics(runs.root / "zero-cut") == metrics(runs.root / "zero-2")
    assert weights(runs.root / "zero-cut") == weights(runs.root / "zero-2")
