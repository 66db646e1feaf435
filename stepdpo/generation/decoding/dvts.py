"""Diverse verifier tree search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.ranges import at_least
from stepdpo.generation.beam import beam_search
from stepdpo.generation.branch import StepSettings
from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.step_sampling import Delimiter


@dataclass(frozen=True)
class Dvts:
    """`trees` searches that know nothing of one another, each of which goes on from the best of `expand` steps.

    The answer is the ended one of all trees with the largest score. With one tree it is step_beam with one beam.
    """

    trees: int = 4
    expand: int = 4
    """Next steps of each tree."""
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
        at_least(1, trees=self.trees, expand=self.expand)
        self._settings.check(self.trees * self.expand)

    def __call__(self, context: DecodeContext) -> Decoding:
        return beam_search(context, trees=self.trees, beams=1, expand=self.expand, settings=self._settings)

    @property
    def _settings(self) -> StepSettings:
        return StepSettings(
            self.temperature, self.top_p, self.delimiter, self.max_steps, self.step_tokens, self.max_tokens, self.seed
        )
