"""`python outcomes.py DTYPE`: an engine at stage 0 where `auto` comes to bfloat16, as on a GPU.

Prints a JSON object: the size of the first update over its rate, and the patience, in minutes, of a group that
DeepSpeed makes for itself.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch

from stepdpo.models.scorer import Scorer
from stepdpo.training.engine import zero
from stepdpo.training.engine.settings import Device, Dtype
from stepdpo.training.optimizer import AdamW
from support import tiny

MINUTES = 7


def build(dtype: torch.dtype, gather: Any) -> Scorer:
    return Scorer(tiny.model("eager").to(dtype), False, gather)


def first_update(dtype: Dtype) -> tuple[float, float]:
    """(the mean size of the first update's steps over its rate, the patience of a group made within)."""
    spec = zero.Zero(stage=0, dtype=dtype, device=Device.cpu, timeout_minutes=MINUTES)
    with spec.open(build, AdamW(weight_decay=0.0, clip=0.0)) as engine:
        masters = engine.engine.optimizer.param_groups[0]["params"]
        before = [one.detach().clone() for one in masters]
        loss = (engine.model(torch.arange(8)[None]).logits.float() ** 2).mean()
        engine.backward(loss, last=True)
        engine.step(1e-3)
        moved = torch.cat([(new - old).abs().flatten() for new, old in zip(masters, before, strict=True)])
        group = torch.distributed.new_group([0])
        patience = group._get_backend(torch.device("cpu")).options._timeout.total_seconds() / 60
        return float(moved.float().median()) / 1e-3, patience


def main() -> None:
    warnings.filterwarnings("ignore")
    pick = zero.pick_dtype
    zero.pick_dtype = lambda dtype, device: Dtype.bfloat16 if dtype is Dtype.auto else pick(dtype, device)
    update, patience = first_update(Dtype(sys.argv[1]))
    print(json.dumps({"update": update, "patience": patience}), file=sys.stderr)


main()
