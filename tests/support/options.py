"""Options that meet in the tests of everything with everything, and the twin that each meeting must equal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from stepdpo.algo.dpo import DPO
from stepdpo.algo.dpo import Form as DPOForm
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.sft import SFT
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.tdpo import TDPO
from stepdpo.algo.tdpo import Form as TDPOForm
from stepdpo.algo.wpo import WPO
from stepdpo.core.types import Preference
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.models.attention.registry import Attention
from stepdpo.models.logprobs import HeadMemory
from stepdpo.models.lora import Lora
from stepdpo.tokens.batch_sampler import Group
from stepdpo.training.reference import ReferenceMode
from support import tiny, twins
from support.twins import Setting, Twin

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
FEW = (tiny.PREFERENCES[4], *CHAIN[:2])
"""For two processes: their shares differ, and with a pair a piece one of them has a stand-in."""

LOSSES = {
    "dpo": (DPO(), twins.dpo),
    "hinge": (DPO(form=DPOForm.hinge), lambda c, r, *_: (1 - 0.4 * (c.logratio - r.logratio)).clamp(min=0)),
    "ipo": (DPO(form=DPOForm.ipo), lambda c, r, *_: (c.logratio - r.logratio - 1 / 0.8) ** 2),
    "tdpo1": (TDPO(form=TDPOForm.tdpo1), twins.tdpo1),
    "tdpo2": (TDPO(form=TDPOForm.tdpo2), twins.tdpo2),
    "kto": (KTO(), twins.kto),
    "nca": (NCA(), twins.nca),
    "simpo": (SimPO(), twins.simpo),
    "wpo": (WPO(), twins.wpo),
    "sft": (SFT(), twins.sft),
}
LEVELS = {
    "step": Step(),
    "step-response": Step(prefix=Prefix.response),
    "instance": Instance(),
    "instance-prompt": Instance(prefix=Prefix.prompt),
}
PACKING = {"one-row": (100_000, Group.none), "pieces": (250, Group.none), "problems": (250, Group.problem)}
SHARED_OUT = {"one-row": (100_000, Group.none), "alone": (1, Group.none), "problems": (300, Group.problem)}
"""The packing of few pairs."""
SOURCES = {"cache": ReferenceMode.cache, "online": ReferenceMode.online, "adapter_off": ReferenceMode.adapter_off}
RECOMPUTED = {"kept": (False, HeadMemory.save), "recomputed": (True, HeadMemory.recompute)}
"""Gradient checkpointing, and the head's distributions."""
ADAPTERS = {"whole": None, "lora": Lora(rank=2, alpha=4), "lora-head": Lora(rank=2, alpha=4, head=True)}
_SPARSE: dict[str, Any] = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}
SPARSE = {"whole": None, "few": Lora(**_SPARSE), "few-head": Lora(**_SPARSE, head=True)}
"""Adapters on few matrices: under ZeRO a matrix costs more to look after than to multiply by."""
STAGES = {f"stage-{stage}": stage for stage in range(4)}
"""Of ZeRO."""
BACKENDS = {"runs": Attention.runs, "dense": Attention.dense}
Case = tuple[str, ...]
"""A name of each kind."""
Kinds = tuple[dict[str, Any], ...]
LOCAL: Kinds = (LOSSES, LEVELS, PACKING, SOURCES, RECOMPUTED, ADAPTERS, BACKENDS)
ZERO: Kinds = (LOSSES, LEVELS, SHARED_OUT, SOURCES, RECOMPUTED, SPARSE, STAGES)


def every(kinds: Kinds) -> list[Case]:
    """The whole product; only a policy with an adapter can be the reference without it."""
    return [case for case in itertools.product(*kinds) if not (case[3] == "adapter_off" and case[5] == "whole")]


def engine_of(case: Case) -> Case:
    """Cases that agree in this can be computed by one engine: (recomputed, adapter, stage)."""
    return case[4:]


def covering(cases: Sequence[Case]) -> list[Case]:
    """Few cases in which every two options that can meet do: always the next one with most new meetings."""
    meetings = {case: frozenset(itertools.combinations(enumerate(case), 2)) for case in cases}
    wanted = set().union(*meetings.values())
    taken = []
    while wanted:
        best = max(cases, key=lambda case: len(meetings[case] & wanted))
        taken.append(best)
        wanted -= meetings[best]
    return taken


@dataclass(frozen=True)
class Adapted:
    """A tiny model with an adapter."""

    name: str

    def __call__(self, attention: str) -> Any:
        return adapted(self.name, tiny.model(attention).double())


def adapted(name: str, model: Any) -> Any:
    lora = {**ADAPTERS, **SPARSE}[name]
    return lora.attach(model) if lora else model


@cache
def expected(level: str, adapter: str, few: bool = False) -> dict[str, Twin]:
    """What the padded twin says of every loss in double precision, whatever the other options."""
    setting = Setting(None, LEVELS[level], preferences=FEW if few else MANY, make=Adapted(adapter))
    return twins.twins(setting, {name: formula for name, (_, formula) in LOSSES.items()})
