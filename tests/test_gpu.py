"""What needs one CUDA device: the same numbers as on the CPU, and a whole run in bfloat16."""

from __future__ import annotations

from pathlib import Path

import commands
import pytest
import torch
from transformers import AutoModelForCausalLM

from stepdpo.batch import TreeBatch
from stepdpo.engine.local import Local
from stepdpo.engine.settings import Device, Dtype
from stepdpo.model.attention import register
from stepdpo.model.forward import Scorer
from stepdpo.model.load import Pretrained
from stepdpo.optim import AdamW

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def scores(model: Path, device: Device, batch: TreeBatch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Summed log-probabilities and every gradient of their sum."""
    spec = Local(dtype=Dtype.float32, device=device)
    build = lambda dtype, gather: Scorer(Pretrained(str(model)).model(register(), dtype), False, gather)  # noqa: E731
    with spec.open(build, AdamW()) as engine:
        logps_B2, *_ = engine.score(batch)
        engine.backward(logps_B2.sum(), last=True)
        return logps_B2.detach().cpu(), [p.grad.cpu() for p in engine.scorer.parameters()]


def test_the_gpu_computes_what_the_cpu_computes(tiny_model: Path, preferences: Path) -> None:
    from stepdpo.collate import collate
    from stepdpo.dataset import Dataset
    from stepdpo.level import Step
    from stepdpo.template import NativeTemplate
    from stepdpo.tokenise import Lengths, tokenise
    from stepdpo.trees import grow

    tokenizer = Pretrained(str(tiny_model)).tokenizer()
    pairs = [Step()(p) for p in Dataset(str(preferences)).load().preferences]
    paths = tokenise(pairs, NativeTemplate(), tokenizer, Lengths()).paths
    batch = collate([grow(both, [number], [1.0]) for number, both in paths.items()])
    (ours, our_gradients), (theirs, their_gradients) = (
        scores(tiny_model, device, batch) for device in (Device.cuda, Device.cpu)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_run_on_the_gpu(tiny_model: Path, pairs_words: list[str], tmp_path: Path) -> None:
    words = [f"model={tiny_model}", *pairs_words, "algo=tdpo", "engine=local", "engine.device=cuda", "run=gpu"]
    done = commands.stepdpo("train", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "gpu" / "model")
