"""Frozen bases of the tests' own, without bitsandbytes: one that changes nothing, and one that rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stepdpo.models.quantise import Merge


@dataclass(frozen=True)
class Rounded:
    """Every inner matrix rounded to multiples of `step`; 0 changes nothing."""

    step: float = 0.0
    merge: Merge = Merge.dequantised

    def quantise(self, model: Any, device: torch.device) -> None:
        head = model.get_output_embeddings()
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not head and self.step:
                with torch.no_grad():
                    module.weight.copy_((module.weight / self.step).round() * self.step)

    def key(self, computed: torch.dtype) -> Mapping[str, Any]:
        return {"type": "rounded", "double": False, "compute": str(computed), "step": self.step}
