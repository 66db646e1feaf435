"""The answer that most samples give (self-consistency, Wang et al. 2022, arXiv 2203.11171)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.votes import shares, weights_of
from stepdpo.generation.whole_responses import check_drawing, draw


@dataclass(frozen=True)
class Vote:
    """A vote of `n` responses by their final answers; with a scorer, each counts its score.

    Responses without an answer vote for nothing. A tie is split: it is right as far as the right answer is among the
    tied ones, and the response shown is the first that gives one of them.
    """

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
        weights = weights_of(drawn.scored) or [1.0] * self.n
        return drawn.responses(shares(drawn.groups, weights))
