"""`adapter=lora` through the real command line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from support.commands import metrics, stepdpo


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=2", "log_every=1", "save_every=3", "eval_every=3", "template=alpaca",
        "engine=local", "adapter=lora", "adapter.rank=4", "optim.lr=1e-2", "run=x",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.exhaustive
def test_targets_that_fit_nothing_are_the_user_s_to_mend(words: list[str], tmp_path: Path) -> None:
    done = stepdpo(*words, "adapter.targets=[q_prj]", cwd=tmp_path)
    assert done.code == 2, done.said
    assert "adapter.targets: the model has no linear layer 'q_prj'; did you mean 'q_proj'?" in done.err
    assert "Traceback" not in done.said
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_it_learns_and_its_model_is_one_like_any_other(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    done = stepdpo(*words, cwd=tmp_path)
    assert done.code == 0, done.said
    run = tmp_path / "runs" / "x"
    losses = [line["loss"] for line in metrics(run) if "loss" in line]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0] - 0.01
    for folder in (run / "model", run / "checkpoints" / "step-000003"):
        assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 4
    done = stepdpo("eval", "run=x", "task=tinymath", "task.limit=2", "decode.max_tokens=8", cwd=tmp_path)
    assert done.code == 0, done.said


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("engine=local",), ("engine=zero", "engine.stage=1")], ids=["local", "zero-1"])
@pytest.mark.exhaustive
def test_beside_a_base_in_4_bits_it_goes_on_as_it_began(
    words: list[str], engine: tuple[str, ...], blocks_model: Path, tmp_path: Path
) -> None:
    """Cut off after update 3 and resumed: the same lines, the same bytes."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'stepdpo[qlora]'")
    kept = [word for word in words if not word.startswith(("model=", "engine=", "adapter="))]
    start = [*kept, f"model={blocks_model}", "adapter=qlora", *engine]
    done = stepdpo(*start, cwd=tmp_path)
    assert done.code == 0, done.said
    run = tmp_path / "runs" / "x"
    lines, model = metrics(run), (run / "model" / "model.safetensors").read_bytes()
    assert lines[0]["heldout/loss"] == pytest.approx(math.log(2), abs=1e-6)
    shutil.rmtree(run / "model")
    for folder in (run / "checkpoints").iterdir():
        if folder.name != "step-000003":
            shutil.rmtree(folder)
    done = stepdpo("train", "run=x", "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert "resuming after update 3" in done.said
    assert metrics(run) == lines
    assert (run / "model" / "model.safetensors").read_bytes() == model


@pytest.fixture(scope="module")
def earlier(words: list[str], blocks_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a first, supervised training by `adapter=lora`, in a folder of its own."""
    pytest.importorskip("peft")
    place = tmp_path_factory.mktemp("earlier")
    base = [word for word in words if not word.startswith(("model=", "run="))]
    done = stepdpo(*base, f"model={blocks_model}", "algo=sft", "max_steps=2", "run=sft", cwd=place)
    assert done.code == 0, done.said
    return place / "runs" / "sft" / "model" / "adapter"


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", pytest.param("qlora", marks=pytest.mark.exhaustive)])
def test_it_begins_from_an_adapter(
    adapter: str, words: list[str], earlier: Path, blocks_model: Path, tmp_path: Path
) -> None:
    """The shape is the folder's; base and adapter are the reference; a base held otherwise is told."""
    if adapter == "qlora":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'stepdpo[qlora]'")
    kept = [word for word in words if not word.startswith(("model=", "adapter"))]
    start = [*kept, f"model={blocks_model}", f"adapter={adapter}", f"adapter.start={earlier}"]
    done = stepdpo(*start, "reference=adapter_off", cwd=tmp_path)
    assert done.code == 0, done.said
    assert ("was trained beside a base that is not quantised" in done.said) == (adapter == "qlora")
    run = tmp_path / "runs" / "x"
    assert metrics(run)[0]["heldout/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert json.loads((run / "model" / "adapter" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_cannot_be_begun_from_is_the_user_s_to_mend(
    words: list[str], earlier: Path, blocks_model: Path, tmp_path: Path
) -> None:
    """Before anything is made, but for what only the model can tell."""
    merged = earlier.parent
    rest = [word for word in words if not word.startswith(("model=", "adapter.rank"))]
    cases = [
        ((f"model={blocks_model}", f"adapter.start={merged}"), f"the adapter is {earlier}"),
        ((f"model={blocks_model}", f"adapter.start={earlier}", "adapter.rank=8"), "leave adapter.rank out"),
        ((f"model={merged}", f"adapter.start={earlier}"), "already; give the model that it was trained beside"),
        ((f"model={blocks_model}", f"adapter.start={earlier}", "rounds=2"), "adapter.start: rounds sample from whole"),
    ]
    for given, said in cases:
        kept = [word for word in rest if "rounds=2" not in given or not word.startswith("dataset")]
        done = stepdpo(*kept, *given, cwd=tmp_path)
        assert (done.code, said in done.err) == (2, True), done.said
        assert "Traceback" not in done.said
        assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir()), given
