"""Step-level beam search, after AlphaMath (Chen et al. 2024, arXiv 2405.03553): SBS(B1, B2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.ranges import at_least
from stepdpo.generation.beam import beam_search
from stepdpo.generation.branch import StepSettings
from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.step_sampling import Delimiter


@dataclass(frozen=True)
class StepBeam:
    """Of `beams` beginnings `expand` next steps each are drawn and scored, and the best `beams` of all go on.

    A beginning that ends leaves with its beam, so fewer and fewer are kept; the answer is the ended one with the
    largest score. With one beam, one step and temperature 0 it is greedy decoding.
    """

    beams: int = 3
    """B1."""
    expand: int = 5
    """B2: next steps of each beam; B1 x B2 first steps."""
    temperature: float = 0.8
    top_p: float = 1.0
    delimiter: Delimiter = Delimiter.step
    """What parts steps."""
    max_steps: int = 20
    step_tokens: int | None = None
    """Longest step; null for what is left of max_tokens."""
    max_tokens: int = 2048
    """Longest response."""
    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset({"scorer"})
    takes: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, beams=self.beams, expand=self.expand)
        self._settings.check(self.beams * self.expand)

    def __call__(self, context: DecodeContext) -> Decoding:
        return beam_search(context, trees=1, beams=self.beams, expand=self.expand, settings=self._settings)

    @property
    def _settings(self) -> StepSettings:
        return StepSettings(
            self.temperature, self.top_p, self.delimiter, self.max_steps, self.step_tokens, self.max_tokens, self.seed
        )
