"""Everything with everything: each loss at each level, however packed, scored, recomputed or adapted, is the twin.

The default run takes a sample in which every two options of different kinds meet; `make test-slow` takes all (with
the attention that is used on a CPU; the dense one, itself a twin, is in the sample).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import twins
from twins import Rows, Setting, Twin, close, gradient_of, moved, twin

from stepdpo.algo.dpo import DPO
from stepdpo.algo.dpo import Form as DPOForm
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.sft import SFT
from stepdpo.algo.tdpo import TDPO
from stepdpo.algo.tdpo import Form as TDPOForm
from stepdpo.engine.local import Local
from stepdpo.engine.settings import Device
from stepdpo.feed import Group
from stepdpo.level import Instance, Prefix, Step
from stepdpo.logps import Keep
from stepdpo.material import prepare
from stepdpo.model.adapter import Lora, adapter_off
from stepdpo.model.attention import Attention, register
from stepdpo.model.forward import Scorer
from stepdpo.optim import AdamW
from stepdpo.records import Preference
from stepdpo.references import Kept, Live, Mode
from stepdpo.scoring import Scoring
from stepdpo.tokenise import Lengths

CHAIN = tuple(
    Preference(
        question="Mia saves 2 coins a day, then 3, then 4. How many has she?",
        prefix="Step 1: After one day she has 2." + "".join(f" Step {n}: {n} more days." for n in range(2, 2 + depth)),
        chosen=f" Step {2 + depth}: {2 + depth} more days.",
        rejected=f" Step {2 + depth}: nothing{' at all' * depth}.",
        chosen_rest=" The answer is: 9",
        rejected_rest=" The answer is: 0",
        confidence=0.9 - 0.1 * depth,
    )
    for depth in range(3)
)
"""Three pairs of one problem, each a step further on: as one tree, deeper forks below earlier ones."""
MANY = (*tiny.PREFERENCES, *CHAIN)

LOSSES = {
    "dpo": (DPO(), twins.dpo),
    "hinge": (DPO(form=DPOForm.hinge), lambda c, r, *_: (1 - 0.4 * (c.logratio - r.logratio)).clamp(min=0)),
    "ipo": (DPO(form=DPOForm.ipo), lambda c, r, *_: (c.logratio - r.logratio - 1 / 0.8) ** 2),
    "tdpo1": (TDPO(form=TDPOForm.tdpo1), twins.tdpo1),
    "tdpo2": (TDPO(form=TDPOForm.tdpo2), twins.tdpo2),
    "kto": (KTO(), twins.kto),
    "nca": (NCA(), twins.nca),
    "sft": (SFT(), twins.sft),
}
LEVELS = {
    "step": Step(),
    "step-response": Step(prefix=Prefix.response),
    "instance": Instance(),
    "instance-prompt": Instance(prefix=Prefix.prompt),
}
PACKING = {"one-row": (100_000, Group.none), "pieces": (250, Group.none), "problems": (250, Group.problem)}
SOURCES = {"cache": Mode.cache, "online": Mode.online, "adapter_off": Mode.adapter_off}
RECOMPUTED = {"kept": (False, Keep.save), "recomputed": (True, Keep.recompute)}
"""Gradient checkpointing, and the head's distributions."""
ADAPTERS = {"whole": None, "lora": Lora(rank=2, alpha=4), "lora-head": Lora(rank=2, alpha=4, head=True)}
BACKENDS = {"runs": Attention.runs, "dense": Attention.dense}
KINDS: tuple[dict[str, Any], ...] = (LOSSES, LEVELS, PACKING, SOURCES, RECOMPUTED, ADAPTERS, BACKENDS)


def possible(case: tuple[str, ...]) -> bool:
    """Only a policy with an adapter can be the reference without it."""
    return not (case[3] == "adapter_off" and case[5] == "whole")


ALL = [case for case in itertools.product(*KINDS) if possible(case)]


def covering(cases: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Few cases in which every two options that can meet do: always the next one with most new meetings."""

    def meetings(case: tuple[str, ...]) -> set[tuple[tuple[int, str], ...]]:
        return set(itertools.combinations(enumerate(case), 2))

    wanted = set().union(*map(meetings, cases))
    taken = []
    while wanted:
        best = max(cases, key=lambda case: len(meetings(case) & wanted))
        taken.append(best)
        wanted -= meetings(best)
    return taken


SAMPLE = covering(ALL)


@dataclass(frozen=True)
class Adapted:
    """A tiny model whose adapters have moved, so that the policy is not the base: B of LoRA starts at zero."""

    name: str

    def __call__(self, attention: str) -> Any:
        model = tiny.model(attention)
        lora = ADAPTERS[self.name]
        return lora.attach(model.double()) if lora else model


@cache
def expected(loss: str, level: str, adapter: str) -> Twin:
    return twin(Setting(LOSSES[loss][0], LEVELS[level], preferences=MANY, make=Adapted(adapter)), LOSSES[loss][1])


def computed(case: tuple[str, ...], folder: Path) -> tuple[dict[str, float], twins.Gradient]:
    """Mean metrics and the gradient of the mean loss, our way."""
    algo, (tokens, group), mode = LOSSES[case[0]][0], PACKING[case[2]], SOURCES[case[3]]
    (checkpointing, keep), make = RECOMPUTED[case[4]], Adapted(case[5])
    attention, kl = register(BACKENDS[case[6]]), "kl" in LOSSES[case[0]][0].needs

    def build(_: torch.dtype, gather: Any) -> Scorer:
        return Scorer(make(attention).double(), kl, gather, keep)

    def without(batch: Any) -> Any:
        with adapter_off(engine.model):
            return engine.score(batch)

    material = prepare(
        Rows(MANY), LEVELS[case[1]], tiny.CHAT, algo.needs, tiny.tokenizer(), Lengths(max_length=512), folder, False
    )
    with Local(device=Device.cpu, gradient_checkpointing=checkpointing).open(build, AdamW()) as engine:
        references: Any = {
            Mode.cache: lambda: Kept(engine, algo.needs, tokens, {"test": str(folder)}, group),
            Mode.online: lambda: Live(engine.second(build), kl),
            Mode.adapter_off: lambda: Live(without, kl),
        }[mode]()
        done = Scoring(engine, algo, tokens, references, group)
        done.prepare(material)
        moved(engine.model, 0.02)
        metrics = done.passes(material.train, sorted(material.train), "train", learn=True)
        return metrics, gradient_of(engine.model)


def check(case: tuple[str, ...], folder: Path) -> None:
    metrics, gradient = computed(case, folder)
    wanted = expected(case[0], case[1], case[5])
    assert metrics["loss"] == pytest.approx(wanted.loss, rel=1e-6)
    close(gradient, wanted.gradient)


@pytest.mark.parametrize("case", SAMPLE, ids=" ".join)
def test_a_sample(case: tuple[str, ...], tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", LEVELS)
def test_all(loss: str, level: str, tmp_path: Path) -> None:
    for number, case in enumerate(case for case in ALL if case[:2] == (loss, level) and case[6] == "runs"):
        check(case, tmp_path / str(number))


def test_the_sample_meets_every_pair_of_options() -> None:
    """And is much smaller than the whole."""
    met = {pair for case in SAMPLE for pair in itertools.combinations(enumerate(case), 2)}
    for (i, one), (j, other) in itertools.combinations(enumerate(KINDS), 2):
        for a, b in itertools.product(one, other):
            assert ((i, a), (j, b)) in met or {a, b} == {"adapter_off", "whole"}
    assert len(SAMPLE) < len(ALL) / 10


def test_problems_really_share(tmp_path: Path) -> None:
    """The chain as one tree holds fewer tokens than its pairs one by one; otherwise packing would compare nothing."""
    one_by_one, _ = computed(("sft", "step", "one-row", "cache", "kept", "whole", "runs"), tmp_path / "1")
    merged, _ = computed(("sft", "step", "problems", "cache", "kept", "whole", "runs"), tmp_path / "2")
    assert merged["tokens"] < one_by_one["tokens"]
