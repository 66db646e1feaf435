"""`python product.py FOLDER`: one update of each case of FOLDER/cases.json on all processes, compared with the twin.

An engine serves every case that does not need another one. It learns with rate 0, so that each case finds the
weights as they were. Every process appends a line a case to FOLDER/RANK.jsonl: the case, and what is wrong, if
anything is.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.load import Pretrained
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch_sampler import BatchSize
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import TokenizedDataset, prepare
from stepdpo.training.engine.settings import Device, Dtype
from stepdpo.training.engine.zero import Zero
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import CachedReference, NoReference, OnlineReference, ReferenceMode, without_adapter
from stepdpo.training.step import StepInputs, TrainStep
from support import tiny
from support.options import (
    FEW,
    LEVELS,
    LOSSES,
    RECOMPUTED,
    SHARED_OUT,
    SOURCES,
    STAGES,
    Case,
    adapted,
    engine_of,
    expected,
)
from support.twins import Rows, close

SHARDED = 500
"""Parameters of more numbers are really sharded at stage 3; by default none of so small a model would be."""
RTOL = 5e-5
"""Of fp32 under DeepSpeed against double precision: log-probabilities of some 300 nats are known to 2e-5 in fp32, and a
loss, like the factor of its gradient, is made of small differences of them."""


@dataclass
class Update:
    """All that one engine computes, its reference scores made before its weights are moved."""

    engine: Any
    build_reference: Callable[..., Any]
    folder: Path
    materials: dict[Any, TokenizedDataset]
    references: dict[Any, Any] = field(default_factory=dict)
    shares: dict[Any, StepInputs] = field(default_factory=dict)

    def prepared(self, case: Case) -> tuple[TrainStep, StepInputs]:
        """A loss with its share of an update; what is the same for two cases is made for the first of them."""
        loss, level, packing, source = case[:4]
        algo, (tokens, group) = LOSSES[loss][0], SHARED_OUT[packing]
        material = self._material(level, algo.needs)
        key = level, packing, source, algo.needs
        if key not in self.references:
            self.references[key] = self._reference(case, algo.needs)
            self.references[key].prepare(material)
        done = TrainStep(self.engine, algo, BatchSize(tokens=tokens, group=group), self.references[key])
        done.mismatched = material.mismatched
        if key not in self.shares:
            self.shares[key] = done.inputs(material.train, sorted(material.train), "train")
        return done, self.shares[key]

    def _material(self, level: str, needs: frozenset[str]) -> TokenizedDataset:
        key = level, needs
        if key not in self.materials:
            self.materials[key] = prepare(
                Rows(FEW), LEVELS[level], tiny.CHAT, needs, tiny.tokenizer(), Lengths(max_length=512), self.folder,
                self.engine,
            )  # fmt: skip
        return self.materials[key]

    def _reference(self, case: Case, needs: frozenset[str]) -> Any:
        if "reference" not in needs:
            return NoReference()
        (tokens, group), mode = SHARED_OUT[case[2]], SOURCES[case[3]]
        if mode is ReferenceMode.cache:
            return CachedReference(
                self.engine,
                needs,
                BatchSize(tokens=tokens, group=group),
                {"test": [str(self.folder), *engine_of(case), case[2]]},
            )
        return OnlineReference(
            self.build_reference if mode is ReferenceMode.online else without_adapter(self.engine), "kl" in needs
        )

    def move(self) -> None:
        """As `tiny.perturb` moves a whole model: what is computed with, and DeepSpeed's own copy of it."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        parameters = list(self.engine.model.parameters())
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=self.engine.sharded):
            tiny.perturb(self.engine.model)
            whole = [p.detach().clone() for p in parameters]
        for parameter, value in zip(parameters, whole, strict=True):
            if parameter.requires_grad:
                safe_set_full_fp32_param(parameter, value)

    def gradient(self) -> dict[str, torch.Tensor]:
        """Whole, as the step is about to use it."""
        from deepspeed.utils import safe_get_full_grad

        found = {}
        for name, parameter in self.engine.model.named_parameters():
            gradient = safe_get_full_grad(parameter) if parameter.requires_grad else None
            shape = getattr(parameter, "ds_shape", parameter.shape)
            found[name] = torch.zeros(shape) if gradient is None else gradient.detach().clone()
        return found

    def wrong(self, case: Case) -> str:
        """How one update of a case differs from the twin's."""
        done, share = self.prepared(case)
        metrics = done.compute(share, learn=True)
        gradient = self.gradient()
        norm = self.engine.step(0.0)
        wanted = expected(case[1], case[5], few=True)[case[0]]
        try:
            assert_close("loss", metrics["loss"], wanted.loss)
            assert_close("chosen", metrics["logps/chosen"], float(wanted.chosen.logps.mean()))
            close({name: g.double() for name, g in gradient.items()}, wanted.gradient, RTOL)
            assert_close("norm", norm, float(torch.nn.utils.get_total_norm(wanted.gradient.values())))
        except AssertionError as error:
            return str(error)
        return ""


def assert_close(name: str, got: float, wanted: float) -> None:
    assert abs(got - wanted) <= RTOL * abs(wanted), f"{name} is {got}, not {wanted}"


def run(
    cases: Iterable[Case], folder: Path, materials: dict[Any, TokenizedDataset], say: Callable[[Case, str], None]
) -> None:
    """Cases of one engine."""
    cases = list(cases)
    recomputed, adapter, stage = engine_of(cases[0])
    checkpointing, head_memory = RECOMPUTED[recomputed]
    attention = register(Attention.runs)

    def plain(dtype: torch.dtype, gather: Any) -> Scorer:
        return Scorer(Pretrained(str(folder / "model")).model(attention, dtype), False, gather, head_memory)

    def build(dtype: torch.dtype, gather: Any) -> Scorer:
        model = adapted(adapter, Pretrained(str(folder / "model")).model(attention, dtype))
        return Scorer(model, True, gather, head_memory, collision=True)

    spec = Zero(
        stage=STAGES[stage], dtype=Dtype.float32, device=Device.cpu, gradient_checkpointing=checkpointing,
        timeout_minutes=2, deepspeed={"zero_optimization": {"stage3_param_persistence_threshold": SHARDED}},
    )  # fmt: skip
    with spec.open(build, AdamW()) as engine:
        update = Update(engine, engine.build_reference(plain), folder, materials)
        for case in cases:
            update.prepared(case)
        update.move()
        before = engine.weights()
        for case in cases:
            say(case, update.wrong(case))
        after = engine.weights()
        assert all(torch.equal(before[name], after[name]) for name in before), "the weights have moved"


def main() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    cases = [tuple(case) for case in json.loads((folder / "cases.json").read_text())]
    end = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda *_: None  # of the first engine; the others use it too
    materials: dict[Any, TokenizedDataset] = {}
    with (folder / f"{os.environ['RANK']}.jsonl").open("w") as lines:

        def say(case: Case, wrong: str) -> None:
            lines.write(json.dumps({"case": case, "wrong": wrong}) + "\n")
            lines.flush()

        for _, some in itertools.groupby(sorted(cases, key=engine_of), key=engine_of):
            run(some, folder, materials, say)
    end()


if __name__ == "__main__":
    main()
