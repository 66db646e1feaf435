"""DeepSpeed ZeRO on two processes computes what plain torch computes on one: the same trajectory, the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support import partial
from support.commands import metrics
from support.trainings import Job, Runs

pytestmark = pytest.mark.slow

PEFT = find_spec("peft") is not None
LORA = ("adapter=lora", "adapter.rank=4", "optim.lr=1e-2")
FP32 = ("engine=zero", "engine.dtype=float32")
SMALL = ("batch.pairs=3", "batch.tokens=1", "max_steps=4", "save_every=0")

PLAIN = {
    "dpo": ("algo=dpo",),
    "tdpo": ("algo=tdpo",),
    "kto": ("algo=kto", "level=instance", "save_every=0"),
    "sft": ("algo=sft", "level=instance", "save_every=0"),
    "simpo": ("algo=simpo",),
    "wpo": ("algo=wpo", "algo.beta=0.4"),
    "stand-ins": ("algo=tdpo", *SMALL),
    "clipped": ("algo=dpo", "optim.clip=0.01", "save_every=0"),
    "unclipped": ("algo=dpo", "optim.clip=0", "optim.weight_decay=0.1", "save_every=0"),
    "untied-dpo": ("algo=dpo", "untied"),
    "untied-tdpo": ("algo=tdpo", "untied"),
    "frozen": ("algo=tdpo", *partial.WORDS),
    **({"lora": ("algo=tdpo", *LORA), "lora-head": ("algo=tdpo", *LORA, "adapter.head=true")} if PEFT else {}),
}
"""What plain torch runs, by name."""

STAGES = {
    "dpo": (0, 1, 2, 3), "tdpo": (0, 1, 2, 3), "stand-ins": (0, 1, 2, 3), "untied-dpo": (2, 3), "untied-tdpo": (2, 3),
    "clipped": (0, 2, 3), "unclipped": (0, 2, 3), "kto": (3,), "sft": (3,), "simpo": (1, 3), "wpo": (1, 3),
    "frozen": (0, 1, 2, 3),
    **({"lora": (0, 1, 2, 3), "lora-head": (0, 2, 3)} if PEFT else {}),
}  # fmt: skip
FOLLOWS = {
    **{f"{name}/stage-{s}": (*PLAIN[name], f"engine.stage={s}") for name, stages in STAGES.items() for s in stages},
    "dpo/checkpointing-2": (*PLAIN["dpo"], "engine.stage=2", "engine.gradient_checkpointing=true"),
    "tdpo/checkpointing-3": (*PLAIN["tdpo"], "engine.stage=3", "engine.gradient_checkpointing=true"),
    **{
        f"{name}/checkpointing-{s}": (*PLAIN[name], f"engine.stage={s}", "engine.gradient_checkpointing=true")
        for name in ("frozen", *(("lora",) if PEFT else ()))
        for s in (0, 2, 3)
    },
    "dpo/offload-1": (*PLAIN["dpo"], "engine.stage=1", "engine.offload_optimizer=true"),
    "dpo/offload-2": (*PLAIN["dpo"], "engine.stage=2", "engine.offload_optimizer=true"),
    "dpo/offload-3": (*PLAIN["dpo"], "engine.stage=3", "engine.offload_optimizer=true"),
    "tdpo/offload-all-3": (
        *PLAIN["tdpo"], "engine.stage=3", "engine.offload_optimizer=true", "engine.offload_parameters=true",
    ),
    "dpo/offload-parameters-3": (*PLAIN["dpo"], "engine.stage=3", "engine.offload_parameters=true"),
    "dpo/buckets-2": (*PLAIN["dpo"], "engine.stage=2", "+engine.deepspeed.zero_optimization.reduce_bucket_size=500"),
    "dpo/persistence-3": (
        *PLAIN["dpo"], "engine.stage=3",
        "+engine.deepspeed.zero_optimization.stage3_param_persistence_threshold=0",
    ),
}  # fmt: skip
"""What two processes run, by `name of the plain run/kind of engine`, in fp32."""

BF16 = {f"bf16/stage-{s}": ("algo=tdpo", "engine=zero", f"engine.stage={s}", "optim.lr=1e-2") for s in range(4)}

RESUMED = (
    *(f"tdpo/stage-{s}" for s in range(4)), *(f"{name}/stage-{s}" for name in ("simpo", "wpo") for s in (1, 3)),
    *(f"bf16/stage-{s}" for s in range(4)), "untied-dpo/stage-3",
    "dpo/offload-2", "dpo/offload-3", "tdpo/offload-all-3", "tdpo/checkpointing-3",
    *(f"{name}/stage-{s}" for name in ("frozen", *(("lora",) if PEFT else ())) for s in range(4)),
)  # fmt: skip

SAMPLE = {
    "tdpo/stage-1", "tdpo/stage-3", "wpo/stage-3", "stand-ins/stage-2", "untied-dpo/stage-3", "clipped/stage-3",
    "kto/stage-3", "frozen/checkpointing-2", "lora-head/stage-3", "tdpo/offload-all-3", "dpo/offload-2",
    "dpo/buckets-2", "bf16/stage-3",
}  # fmt: skip
"""What is most unlike plain torch; the rest is `exhaustive`."""


def each(names: Iterable[str]) -> list[Any]:
    return [pytest.param(n, marks=() if n in SAMPLE else pytest.mark.exhaustive) for n in names]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str],
    tiny_model: Path, untied_model: Path,
) -> Runs:  # fmt: skip
    """What the tests that were chosen ask for, and no more."""
    runs = Runs(tmp_path_factory.mktemp("parity"), pairs_words)
    here = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    asked = {item.callspec.params["name"] for item in here if hasattr(item, "callspec")} | {"bf16/stage-3"}

    def model(words: tuple[str, ...]) -> list[str]:
        path = untied_model if "untied" in words else tiny_model
        return ["model=pretrained", f"model.path={path}", *(w for w in words if w != "untied")]

    for name in sorted({"dpo", "tdpo"} | {name.partition("/")[0] for name in asked - BF16.keys()}):
        runs.local(name, *model(PLAIN[name]))
    together = {**{name: (*words, *FP32) for name, words in FOLLOWS.items()}, **BF16}
    together = {name: words for name, words in together.items() if name in asked}
    jobs = []
    for name, words in together.items():
        runs.write(plain(name), *model(words))
        jobs.append(Job(plain(name)))
        if name in RESUMED:
            runs.write(plain(f"{name}/resumed"), *model(words))
            jobs.append(Job(plain(f"{name}/resumed"), of=plain(name), gone=("model", "checkpoints/step-000004")))
    runs.write("other-world", *model(("algo=dpo", *FP32)))
    done = runs.together([*jobs, Job("other-world", of="dpo", gone=("model",))])
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


def plain(name: str) -> str:
    return name.replace("/", "--")


def ends(runs: Runs, name: str) -> Path:
    answer = runs.outcome(plain(name))
    assert answer["code"] == 0, answer["message"]
    return runs.root / plain(name)


def tolerance(key: str, name: str) -> dict[str, float]:
    """Rewards are differences of sums near -100 (near -700 for whole solutions), which fp32 knows to 1e-5 (1e-4)."""
    if name.startswith("kto"):
        return {"rel": 1e-3, "abs": 5e-4}
    plain = key.removeprefix("heldout/") in ("loss", "grad_norm", "lr", "epoch", "step", "logps/chosen")
    return {"rel": 1e-5, "abs": 2e-6} if plain else {"rel": 1e-5, "abs": 3e-5}


@pytest.mark.parametrize("name", each(FOLLOWS))
def test_every_metric_of_every_update(runs: Runs, name: str) -> None:
    local, zero = metrics(runs.root / name.partition("/")[0]), metrics(ends(runs, name))
    assert len(local) == len(zero) > 4
    for ours, theirs in zip(local, zero, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if key.removeprefix("heldout/") == "chosen_fell" and ours["step"] <= 1:
                continue  # log-ratios are 0 there, and their signs are rounding
            assert theirs[key] == pytest.approx(value, **tolerance(key, name)), (ours["step"], key)


def test_the_plain_run_learns(runs: Runs) -> None:
    """So that the comparison is not one of constants."""
    losses = [line["loss"] for line in metrics(runs.root / "tdpo") if "loss" in line]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0] - 0.01
    norms = {round(line["grad_norm"], 6) for line in metrics(runs.root / "tdpo") if "loss" in line}
    assert len(norms) == len(losses)


@pytest.mark.parametrize("name", each(n for n in FOLLOWS if not n.startswith("kto")))
def test_the_model_is_the_same(runs: Runs, name: str) -> None:
    """It opens with transformers alone, and gives the same logits as the plain run's."""
    folder = ends(runs, name)
    assert_same_logits(runs.root / name.partition("/")[0] / "model", folder / "model", atol=1e-5)
    card = json.loads((folder / "model" / "stepdpo.json").read_text())
    assert card["template"]["name"] == "alpaca"
    assert card["run"] == folder.name


@pytest.mark.parametrize("name", each(f"{algo}/stage-{s}" for algo in ("dpo", "untied-tdpo") for s in (2, 3)))
def test_checkpoints_open_too(runs: Runs, name: str) -> None:
    folder, local = ends(runs, name), runs.root / name.partition("/")[0]
    saved = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert saved == sorted(path.name for path in (local / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    for step in saved:
        assert_same_logits(local / "checkpoints" / step, folder / "checkpoints" / step, atol=1e-5)
        assert (folder / "checkpoints" / step / "stepdpo.json").is_file()
    assert not list(folder.glob("**/*.tmp"))


@pytest.mark.parametrize("name", each(BF16))
def test_bfloat16_learns(runs: Runs, name: str) -> None:
    lines = [line for line in metrics(ends(runs, name)) if "loss" in line]
    assert len(lines) == 6
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-2)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.02
    first = [line for line in metrics(ends(runs, "bf16/stage-3")) if "loss" in line]
    for ours, theirs in zip(first, lines, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=0.05)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=0.05)


@pytest.mark.parametrize("name", each(RESUMED))
def test_a_resumed_run_is_the_same_run(runs: Runs, name: str) -> None:
    """Bit for bit: every line of metrics.jsonl and every weight."""
    whole, resumed = ends(runs, name), ends(runs, f"{name}/resumed")
    assert metrics(whole) == metrics(resumed)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, resumed)]
    assert weights[0] == weights[1]


def test_another_number_of_processes_is_refused(runs: Runs) -> None:
    answer = runs.outcome("other-world")
    assert answer["code"] == 2
    assert "saved by 1 processes and cannot be resumed by 2" in answer["message"]


def assert_same_logits(one: Path, other: Path, atol: float) -> None:
    logits = [_logits(folder) for folder in (one, other)]
    assert float((logits[0] - logits[1]).abs().max()) < atol


def _logits(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)("Amy has 3 + 4 = 7 pens.", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=tokens["input_ids"]).logits
