"""A stand-in for a model that knows the solutions of the miniature, and gets a step wrong now and then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from stepdpo.core.steps import join_steps, split_steps
from stepdpo.core.types import Completion, Problem, Sampling
from stepdpo.pairs.config import PairsConfig
from stepdpo.tinymath.problems import problems
from support.constructions import SMALL, TEMPLATE, composed


@dataclass(frozen=True)
class Forgetful:
    """Knows the gold solutions, and gets a step wrong now and then."""

    known: tuple[Problem, ...]

    @contextmanager
    def open(self, model: Any) -> Iterator[Forgetful]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        return [
            [self._write(prompt, Random(f"{prompt}/{number}/{params.seed}")) for number in range(params.n)]
            for prompt in prompts
        ]

    def _write(self, prompt: str, rng: Random) -> Completion:
        (problem,) = (p for p in self.known if f"Q: {p.question}\nA:" in prompt)
        begun = prompt.partition("\nA:")[2]
        head, steps = split_steps("\n" + problem.solution)
        at = rng.randrange(len(steps) + 1)
        if at < len(steps):
            steps[at] = steps[at].replace(" = ", " = 9")
            steps[-1] = steps[-1].rpartition("is: ")[0] + "is: 5555"
        text = join_steps(head, steps)
        return Completion(text[len(begun) :] if text.startswith(begun) else "", 20, "eos")


def forgetful(count: int) -> PairsConfig:
    sampler = Forgetful(tuple(problems("preference", count)))
    return replace(composed(f"limit={count}"), model=SMALL, sampler=sampler, template=TEMPLATE)
