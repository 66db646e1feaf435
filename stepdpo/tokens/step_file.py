"""The steps of a token store on disc: written and read whole, and only for losses that look at steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepdpo.tokens.step_spans import Floats, Ints, Steps


@dataclass(frozen=True)
class StepFile:
    """Numbers of all steps of a store, response by response."""

    starts: NDArray[np.int64]
    """(responses + 1,): where the steps of each response begin."""
    stops: Ints
    labels: Floats
    tokens: NDArray[np.int64]
    """(responses + 1,): where the scored tokens of each response begin."""
    weights: Floats
    """One a scored token; empty where all are 1."""
    response_labels: Floats

    @classmethod
    def made_of(cls, responses: Sequence[Steps]) -> StepFile:
        """The steps of responses in their order."""
        weights = np.concatenate([np.zeros(0, np.float32), *(steps.weights for steps in responses)])
        return cls(
            starts=np.cumsum([0, *(len(steps.stops) for steps in responses)]),
            stops=np.concatenate([np.zeros(0, np.int32), *(steps.stops for steps in responses)]),
            labels=np.concatenate([np.zeros(0, np.float32), *(steps.labels for steps in responses)]),
            tokens=np.cumsum([0, *(len(steps.weights) for steps in responses)]),
            weights=weights if (weights != 1).any() else weights[:0],
            response_labels=np.array([steps.label for steps in responses], np.float32),
        )

    def of(self, response: int) -> Steps:
        """The steps of one response."""
        steps = slice(self.starts[response], self.starts[response + 1])
        first, last = int(self.tokens[response]), int(self.tokens[response + 1])
        weights = self.weights[first:last] if len(self.weights) else np.ones(last - first, np.float32)
        return Steps(self.stops[steps], self.labels[steps], weights, float(self.response_labels[response]))

    def write(self, path: Path) -> None:
        """As an .npz file, which holds numbers and no code."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **vars(self))

    @classmethod
    def read(cls, path: Path) -> StepFile | None:
        """What was written, or None where nothing was."""
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
