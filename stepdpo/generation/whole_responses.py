"""Independent whole responses to one prompt, with the final answer and the score of each."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.steps import split_steps, step_ends
from stepdpo.core.types import Completion
from stepdpo.generation.decoded import DecodeContext, Response
from stepdpo.generation.requests import Beginning, Generate, GroupAnswers, Request, Scored, ScoreSteps


@dataclass(frozen=True, slots=True)
class Drawn:
    """The responses to one prompt, in the order of their numbers."""

    completions: tuple[Completion, ...]
    groups: tuple[int | None, ...]
    """The number of each one's final answer."""
    scored: tuple[Scored, ...]
    """Empty where there is no scorer."""

    def responses(self, shares: Sequence[float]) -> tuple[Response, ...]:
        """With the share that each has in the answer."""
        scores: list[float | None] = [one.score for one in self.scored]
        scores = scores or [None] * len(self.completions)
        return tuple(map(Response, self.completions, shares, scores, self.groups))


def draw(
    context: DecodeContext, n: int, temperature: float, top_p: float, max_tokens: int, seed: int
) -> Generator[Request, Any, Drawn]:
    """`n` samples of whole responses; they are scored where there is a scorer."""
    prompt = context.prompt.text
    (completions,) = yield Generate(
        (prompt,), n, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed
    )
    groups = yield GroupAnswers(tuple(completion.text for completion in completions))
    scored: Sequence[Scored] = ()
    if context.scored:
        scored = yield ScoreSteps(prompt, tuple(beginning(completion) for completion in completions))
    return Drawn(tuple(completions), tuple(groups), tuple(scored))


def beginning(completion: Completion) -> Beginning:
    """A whole response by its steps; one that has no `Step k:` is a single step."""
    text, at, steps = completion.text, 0, []
    for end in step_ends(*split_steps(text)) or [len(text)]:
        steps.append(text[at:end])
        at = end
    return Beginning(tuple(steps), completion.finish == "eos")


def check_drawing(n: int, temperature: float, top_p: float, max_tokens: int, seed: int) -> None:
    """ValueError for settings with which nothing can be drawn."""
    at_least(1, n=n, max_tokens=max_tokens)
    at_least(0, seed=seed)
    within(0, 1, top_p=top_p)
    positive(top_p=top_p)
    if n > 1:
        positive(temperature=temperature)  # at 0 all responses would be one
    at_least(0, temperature=temperature)
