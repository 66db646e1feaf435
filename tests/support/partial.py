"""An adapter of the tests' own: the last layer learns and all else is frozen, as under LoRA, without peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WORDS = ("adapter._target_=tests.support.partial.LastLayer",)


@dataclass(frozen=True)
class LastLayer:
    def attach(self, model: Any) -> Any:
        model.requires_grad_(False)
        model.model.layers[-1].requires_grad_(True)
        return model
