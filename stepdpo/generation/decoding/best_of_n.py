"""The sample that a scorer finds best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.whole_responses import check_drawing, draw


@dataclass(frozen=True)
class BestOfN:
    """Of `n` responses the one with the largest score, the first of equal ones."""

    n: int = 8
    """Responses a problem."""
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048
    """Longest response."""
    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset({"answers", "scorer"})
    takes: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_drawing(self.n, self.temperature, self.top_p, self.max_tokens, self.seed)

    def __call__(self, context: DecodeContext) -> Decoding:
        drawn = yield from draw(context, self.n, self.temperature, self.top_p, self.max_tokens, self.seed)
        scores = [one.score for one in drawn.scored]
        best = scores.index(max(scores))
        return drawn.responses([float(place == best) for place in range(self.n)])
