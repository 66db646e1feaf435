"""The steps of responses as integers, for losses that look at steps: where each ends, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Steps:
    """Those of one response, which cover its scored tokens without a gap."""

    stops: Ints
    """One a step: index in the sequence of the first token that no longer belongs to it; the last is its length."""
    labels: Floats
    """One a step: how right it is, in [0, 1]; NaN where nobody knows."""
    weights: Floats
    """One a scored token."""
    label: float
    """How right the whole response is, in [0, 1]; NaN where nobody knows."""

    def cut(self, skip: int, length: int, first_scored: int) -> Steps:
        """Those of a sequence that lost its first `skip` tokens and has `length` left, scored from `first_scored` on.

        A step of which no scored token is left is gone.
        """
        stops = np.minimum(self.stops - skip, length).astype(np.int32)
        kept = np.diff(stops, prepend=np.int32(first_scored)) > 0
        return Steps(stops[kept], self.labels[kept], self.weights[: length - first_scored], self.label)


@dataclass(frozen=True, slots=True)
class TreeSteps:
    """Those of all responses of a tree, response by response."""

    terms: Ints
    """One a term: the number of its step."""
    weights: Floats
    """One a term."""
    ends: Ints
    """One a step: index in the tree of its last token."""
    owners: Ints
    """One a step: the response it is a part of."""
    labels: Floats
    """One a step."""
    response_labels: Floats
    """One a response."""


def tree_steps(responses: Sequence[tuple[int, int, Steps, Ints]]) -> TreeSteps:
    """From (owner, first scored token, steps, where its tokens lie in the tree) of each response, in their order."""
    terms: list[Ints] = []
    before = 0
    for _, first, steps, places in responses:
        scored = np.arange(first, len(places), dtype=np.int32)
        terms.append(np.searchsorted(steps.stops, scored, side="right").astype(np.int32) + np.int32(before))
        before += len(steps.stops)
    return TreeSteps(
        terms=np.concatenate(terms),
        weights=np.concatenate([steps.weights for _, _, steps, _ in responses]),
        ends=np.concatenate([places[steps.stops - 1] for _, _, steps, places in responses]),
        owners=np.repeat(
            np.array([owner for owner, *_ in responses], np.int32), [len(steps.stops) for _, _, steps, _ in responses]
        ),
        labels=np.concatenate([steps.labels for _, _, steps, _ in responses]),
        response_labels=np.array([steps.label for _, _, steps, _ in responses], np.float32),
    )
