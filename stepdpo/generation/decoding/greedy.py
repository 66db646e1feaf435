"""One response a prompt, always the likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepdpo.core.protocols import Sampler
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Completion, Sampling


@dataclass(frozen=True)
class Greedy:
    """Deterministic: no sampling, no vote. No stop strings, as in Step-DPO's evaluation."""

    max_tokens: int = 2048
    """Longest response; a longer one is cut and counted as truncated."""

    def __post_init__(self) -> None:
        at_least(1, max_tokens=self.max_tokens)

    def __call__(self, prompts: Sequence[str], sampler: Sampler) -> list[Completion]:
        params = Sampling(n=1, temperature=0.0, max_tokens=self.max_tokens)
        return [completion for (completion,) in sampler.sample(prompts, params)]
