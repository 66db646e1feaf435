"""What is marked on the texts of a pair -> what is known of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepdpo.core.types import Mark, Pair
from stepdpo.data.step_marks import covering
from stepdpo.tokens.step_spans import Floats, Ints, Steps


@dataclass(frozen=True, slots=True)
class SideMarks:
    """The steps and the weights of one scored text."""

    steps_: tuple[Mark, ...]
    """They cover the text."""
    weights: tuple[Mark, ...]
    label: float

    def ends(self, before: int) -> list[int]:
        """Where all stretches end, for a text that has `before` characters in front of it."""
        return [before + mark.end for mark in (*self.steps_, *self.weights)]

    def steps(self, stops: Sequence[int], first_scored: int, length: int) -> Steps:
        """The steps in tokens: `stops` are the first tokens that end after each of `ends`.

        A step without a token of its own is left out. The last step goes on to the end of the sequence, an end of text
        included.
        """
        count = len(self.steps_)
        ends = np.array([*stops[: count - 1], length], np.int32)
        kept = np.diff(np.maximum.accumulate(ends), prepend=np.int32(first_scored)) > 0
        labels = np.array([np.nan if mark.value is None else mark.value for mark in self.steps_], np.float32)
        weights = self._weights(np.array(stops[count:], np.int32), first_scored, length)
        return Steps(ends[kept], labels[kept], weights, self.label)

    def _weights(self, stops: Ints, first_scored: int, length: int) -> Floats:
        """One a scored token; 1 after the last mark."""
        values = np.array([1 if mark.value is None else mark.value for mark in self.weights] + [1], np.float32)
        places = np.searchsorted(stops, np.arange(first_scored, length), side="right")
        return values[places]


def side_marks(pair: Pair) -> list[SideMarks]:
    """Those of the chosen side and, where there is one, of the rejected side.

    A pair's sides are right and wrong as wholes, unless the data label the only one.
    """
    unknown = float("nan") if not pair.rejected else 1.0
    label = unknown if pair.label is None else pair.label
    chosen = SideMarks(covering(pair.chosen_steps, pair.context, pair.chosen), pair.chosen_weights, label)
    if not pair.rejected:
        return [chosen]
    steps = covering(pair.rejected_steps, pair.context, pair.rejected)
    return [chosen, SideMarks(steps, pair.rejected_weights, 0.0)]
