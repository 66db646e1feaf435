"""DeepSpeed ZeRO as a configuration part: on one process or many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.ranges import at_least, within
from stepdpo.training.engine.process_group import process_group
from stepdpo.training.engine.settings import (
    Build,
    Device,
    Dtype,
    pick_device,
    pick_dtype,
)
from stepdpo.training.engine.zero_engine import ZeroEngine, at, load_whole_again
from stepdpo.training.optimizer import AdamW

SETTINGS = {
    "bf16": "engine.dtype",
    "fp16": "engine.dtype (float32 or bfloat16)",
    "gradient_clipping": "optim.clip",
    "gradient_accumulation_steps": "batch.pairs",
    "train_batch_size": "batch.pairs",
    "train_micro_batch_size_per_gpu": "batch.tokens",
    "optimizer": "optim",
    "scheduler": "optim",
    "zero_optimization.stage": "engine.stage",
}
"""Keys of DeepSpeed's configuration that this engine sets, and rests on: by which setting."""


@dataclass(frozen=True)
class Zero:
    """DeepSpeed engine (Rajbhandari et al. 2020, arXiv 1910.02054)."""

    stage: int = 2
    """0 replicates everything; 1 shards the optimiser, 2 also gradients, 3 also parameters."""
    processes: int = 0
    """Processes on this machine; 0 means one a visible GPU, or one without GPUs."""
    hostfile: str | None = None
    """DeepSpeed hostfile (`host slots=8` a line) for several machines."""
    master_port: int = 0
    """Port of the rendezvous; 0 picks a free one (several machines need a fixed one)."""
    dtype: Dtype = Dtype.auto
    gradient_checkpointing: bool = False
    offload_optimizer: bool = False
    """Keep the optimiser's state in CPU memory."""
    offload_parameters: bool = False
    """Keep parameters in CPU memory (stage 3)."""
    device: Device = Device.auto
    timeout_minutes: int = 30
    """How long a process waits for the others before it gives up."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Further keys of DeepSpeed's own configuration, merged over ours."""

    def __post_init__(self) -> None:
        if self.stage not in (0, 1, 2, 3):
            raise ValueError(f"stage must be 0, 1, 2 or 3, got {self.stage}")
        if self.processes < 0:
            raise ValueError(f"processes must be 0 (one a GPU, else one) or more, got {self.processes}")
        at_least(1, timeout_minutes=self.timeout_minutes)
        within(0, 65535, master_port=self.master_port)
        if self.offload_parameters and self.stage != 3:
            raise ValueError("offload_parameters needs stage=3")
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1, 2 or 3")
        for key, setting in SETTINGS.items():
            if at(self.deepspeed, key) is not None:
                raise ValueError(f"deepspeed.{key}: {setting} says that")

    def config(self, optim: AdamW, dtype: Dtype) -> dict[str, Any]:
        """DeepSpeed's configuration. Accumulation is driven by us, so its own count only has to exceed one."""
        zero: dict[str, Any] = {"stage": self.stage}
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu"}
        if self.offload_parameters:
            zero["offload_param"] = {"device": "cpu"}
        ours = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 2,
            "gradient_clipping": optim.clip,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": dtype is Dtype.bfloat16},
            "steps_per_print": None,
        }
        return _merged(ours, self.deepspeed)

    @contextmanager
    def open(self, build: Build, optim: AdamW) -> Iterator[ZeroEngine]:
        device = pick_device(self.device, int(os.environ.get("LOCAL_RANK", "0")))
        kind = pick_dtype(self.dtype, device)
        # Left in this order: another engine of this process must find neither the sharding hook nor the group.
        with process_group(device, self.timeout_minutes):
            try:
                yield ZeroEngine(
                    self.stage, self.gradient_checkpointing, kind, self.config(optim, kind), build, optim, device
                )
            finally:
                load_whole_again()


def _merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Theirs over ours, level by level."""
    merged = dict(ours)
    for key, value in theirs.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged
