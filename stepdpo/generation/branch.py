"""Branches of a search that writes step by step: what is requested to go on from one, and what comes of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.types import Completion
from stepdpo.generation.decoded import DecodeContext, Response
from stepdpo.generation.requests import Beginning, Generate, Request, Scored, ScoreSteps
from stepdpo.generation.step_sampling import Delimiter, closing, stop_strings


@dataclass(frozen=True, slots=True)
class Branch:
    """The beginning of a response, as far as it is written."""

    steps: tuple[str, ...] = ()
    finish: str = ""
    """Empty while it goes on; `eos` where the model ended it, `length` where a limit did."""
    score: float = 0.0
    log: bool = False
    """Whether the score is a logarithm."""
    logp: float = 0.0
    """Nats of the last step, where asked for."""
    tokens: int = 0
    """Generated for the last step."""

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How steps are written."""

    temperature: float
    top_p: float
    delimiter: Delimiter
    max_steps: int
    """A response without an end by then is cut."""
    step_tokens: int | None
    """Longest step; None for what is left of `max_tokens`."""
    max_tokens: int
    """Longest response."""
    seed: int

    def check(self, together: int) -> None:
        """ValueError for settings out of range; `together` is the largest number of steps drawn from one branch."""
        at_least(1, max_steps=self.max_steps, step_tokens=self.step_tokens, max_tokens=self.max_tokens)
        at_least(0, seed=self.seed, temperature=self.temperature)
        positive(top_p=self.top_p)
        within(0, 1, top_p=self.top_p)
        if together > 1:
            positive(temperature=self.temperature)  # at 0 all of them would be one


def grow(
    context: DecodeContext, branches: Sequence[Branch], n: int, settings: StepSettings, logps: bool = False
) -> Generator[Request, Any, list[list[Branch]]]:
    """`n` next steps of each branch, all branches after as many steps; of equal ones the first, in the order drawn."""
    depth = len(branches[0].steps)
    start = _opening(settings.delimiter, depth)
    begun = [goes_on(branch, settings.delimiter) for branch in branches]
    # One limit for all that are asked together, that of the shortest: a longer one is cut once it is over its own.
    room = settings.max_tokens - min(map(context.count, begun))
    drawn = yield Generate(
        tuple(context.prompt.text + text for text in begun),
        n,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=max(1, min(room, settings.step_tokens or room)),
        stop=stop_strings(settings.delimiter, depth),
        logps=logps,
        seed=settings.seed,
    )
    grown = []
    for branch, completions in zip(branches, drawn, strict=True):
        steps = [_next(branch, start, completion, settings) for completion in completions]
        # Two steps are one only if their texts are: what the model finds likely may come several times.
        first: dict[tuple[str, str], Branch] = {}
        for step in steps:
            first.setdefault((step.steps[-1], step.finish), step)
        grown.append(list(first.values()))
    return grown


def scored(
    context: DecodeContext, branches: Sequence[Branch], delimiter: Delimiter
) -> Generator[Request, Any, list[Branch]]:
    """The branches with their scores."""
    if not branches:
        return []
    asked = tuple(
        Beginning(branch.steps, branch.finish == "eos", "" if branch.finish else _opening(delimiter, len(branch.steps)))
        for branch in branches
    )
    found: list[Scored] = yield ScoreSteps(context.prompt.text, asked)
    return [replace(branch, score=one.score, log=one.log) for branch, one in zip(branches, found, strict=True)]


def within_length(context: DecodeContext, branch: Branch, settings: StepSettings) -> Branch:
    """The branch; finished where it has no room or no step left."""
    if branch.finish:
        return branch
    depth = len(branch.steps)
    full = context.count(goes_on(branch, settings.delimiter)) >= settings.max_tokens
    return replace(branch, finish="length") if full or depth >= settings.max_steps else branch


def chosen(context: DecodeContext, branches: Sequence[Branch]) -> tuple[Response, ...]:
    """Finished branches as responses; the whole answer is the one with the largest score, the first of equal ones.

    One that was cut is chosen only where none came to its end.
    """
    best = max(range(len(branches)), key=lambda place: (branches[place].finish == "eos", branches[place].score, -place))
    return tuple(
        Response(completion_of(context, branch), float(place == best), branch.score)
        for place, branch in enumerate(branches)
    )


def completion_of(context: DecodeContext, branch: Branch) -> Completion:
    """A finished branch as one response."""
    return Completion(branch.text, context.count(branch.text) + (branch.finish == "eos"), branch.finish)


def goes_on(branch: Branch, delimiter: Delimiter) -> str:
    """The text of a beginning with what is given of the next step."""
    return branch.text + _opening(delimiter, len(branch.steps))


def _opening(delimiter: Delimiter, depth: int) -> str:
    """What is written for the model before its step after `depth` steps: of `Step k:` all but the number.

    A model may count its steps otherwise, and is to write what it would have written had nobody stopped it.
    """
    return "\nStep" if delimiter is Delimiter.step and depth else ""


def _next(branch: Branch, start: str, completion: Completion, settings: StepSettings) -> Branch:
    stopped = completion.finish == "stop"
    step = start + completion.text + (closing(settings.delimiter, completion) if stopped else "")
    finish = "" if stopped else completion.finish
    return Branch((*branch.steps, step), finish, 0.0, False, completion.logp or 0.0, completion.tokens)
