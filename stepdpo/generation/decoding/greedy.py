"""One response a prompt, always the likeliest token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.ranges import at_least
from stepdpo.generation.decoded import DecodeContext, Decoding, Response
from stepdpo.generation.requests import Generate


@dataclass(frozen=True)
class Greedy:
    """Deterministic: no sampling, no vote. No stop strings, as in Step-DPO's evaluation."""

    max_tokens: int = 2048
    """Longest response; a longer one is cut and counted as truncated."""

    needs: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, max_tokens=self.max_tokens)

    def __call__(self, context: DecodeContext) -> Decoding:
        ((completion,),) = yield Generate(
            (context.prompt.text,), 1, temperature=0.0, top_p=1.0, max_tokens=self.max_tokens
        )
        return (Response(completion),)
