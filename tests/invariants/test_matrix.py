"""Everything with everything: each loss at each level, however packed, scored, recomputed or adapted, is the twin.

The default run takes a sample in which every two options of different kinds meet; `make test-slow` takes all (with
the attention that is used on a CPU; the dense one, itself a twin, is in the sample).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny, twins
from support.options import (
    BACKENDS,
    LEVELS,
    LOCAL,
    LOSSES,
    MANY,
    PACKING,
    RECOMPUTED,
    SOURCES,
    Adapted,
    Case,
    covering,
    every,
    expected,
)
from support.twins import Rows, close, gradient_of, moved

from stepdpo.models.attention.registry import register
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch_sampler import BatchSize
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import prepare
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import Device
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import CachedReference, OnlineReference, ReferenceMode, without_adapter
from stepdpo.training.step import TrainStep

ALL = every(LOCAL)
SAMPLE = covering(ALL)


def computed(case: Case, folder: Path) -> tuple[dict[str, float], twins.Gradient]:
    """Mean metrics and the gradient of the mean loss, our way."""
    algo, (tokens, group), mode = LOSSES[case[0]][0], PACKING[case[2]], SOURCES[case[3]]
    (checkpointing, head_memory), make = RECOMPUTED[case[4]], Adapted(case[5])
    attention, kl = register(BACKENDS[case[6]]), "kl" in LOSSES[case[0]][0].needs

    def build(_: torch.dtype, gather: Any) -> Scorer:
        return Scorer(make(attention).double(), kl, gather, head_memory, collision="collision" in algo.needs)

    material = prepare(
        Rows(MANY), LEVELS[case[1]], tiny.CHAT, algo.needs, tiny.tokenizer(), Lengths(max_length=512), folder
    )
    batch = BatchSize(tokens=tokens, group=group)
    with Local(device=Device.cpu, gradient_checkpointing=checkpointing).open(build, AdamW()) as engine:
        references: Any = {
            ReferenceMode.cache: lambda: CachedReference(engine, algo.needs, batch, {"test": str(folder)}),
            ReferenceMode.online: lambda: OnlineReference(engine.build_reference(build), kl),
            ReferenceMode.adapter_off: lambda: OnlineReference(without_adapter(engine), kl),
        }[mode]()
        done = TrainStep(engine, algo, batch, references)
        done.prepare(material)
        moved(engine.model, 0.02)
        metrics = done.compute(done.inputs(material.train, sorted(material.train), "train"), learn=True)
        return metrics, gradient_of(engine.model)


def check(case: Case, folder: Path) -> None:
    metrics, gradient = computed(case, folder)
    wanted = expected(case[1], case[5])[case[0]]
    assert metrics["loss"] == pytest.approx(wanted.loss, rel=1e-6)
    close(gradient, wanted.gradient)


@pytest.mark.parametrize("case", SAMPLE, ids=" ".join)
def test_a_sample(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", LEVELS)
def test_all(loss: str, level: str, tmp_path: Path) -> None:
    for number, case in enumerate(case for case in ALL if case[:2] == (loss, level) and case[6] == "runs"):
        check(case, tmp_path / str(number))


def test_the_sample_meets_every_pair_of_options() -> None:
    """And is much smaller than the whole."""
    met = {pair for case in SAMPLE for pair in itertools.combinations(enumerate(case), 2)}
    for (i, one), (j, other) in itertools.combinations(enumerate(LOCAL), 2):
        for a, b in itertools.product(one, other):
            assert ((i, a), (j, b)) in met or {a, b} == {"adapter_off", "whole"}
    assert len(SAMPLE) < len(ALL) / 10


def test_problems_really_share(tmp_path: Path) -> None:
    """The chain as one tree holds fewer tokens than its pairs one by one; otherwise packing would compare nothing."""
    one_by_one, _ = computed(("sft", "step", "one-row", "cache", "kept", "whole", "runs"), tmp_path / "1")
    merged, _ = computed(("sft", "step", "problems", "cache", "kept", "whole", "runs"), tmp_path / "2")
    assert merged["tokens"] < one_by_one["tokens"]
