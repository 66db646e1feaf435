"""Several samples a problem, all of which count: the mean accuracy, and an unbiased pass@k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.whole_responses import check_drawing, draw


@dataclass(frozen=True)
class Sample:
    """`n` independent responses; the accuracy is the share of right ones among all."""

    n: int = 8
    """Responses a problem."""
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048
    """Longest response."""
    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    takes: ClassVar[frozenset[str]] = frozenset({"scorer"})

    def __post_init__(self) -> None:
        check_drawing(self.n, self.temperature, self.top_p, self.max_tokens, self.seed)

    def __call__(self, context: DecodeContext) -> Decoding:
        drawn = yield from draw(context, self.n, self.temperature, self.top_p, self.max_tokens, self.seed)
        return drawn.responses([1 / self.n] * self.n)
