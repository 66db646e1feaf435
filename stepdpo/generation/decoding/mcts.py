"""Tree search by PUCT with values in place of answers, after AlphaMath (Chen et al. 2024, arXiv 2405.03553)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from math import tanh
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least
from stepdpo.generation.branch import Branch, StepSettings, chosen, goes_on, grow, scored, within_length
from stepdpo.generation.decoded import DecodeContext, Decoding
from stepdpo.generation.puct import prior_of
from stepdpo.generation.requests import Generate, Request
from stepdpo.generation.step_sampling import Delimiter
from stepdpo.generation.value_search import ValueSearch


@dataclass(frozen=True)
class Mcts:
    """`simulations` times down the tree by PUCT, Q + weight P sqrt(N_parent) / (1 + N), to a node that is expanded.

    Q is the mean of what the scorer said below, in [-1, 1]; P the geometric mean of a step's token probabilities. Gold
    answers are never looked at. The answer is found from the question by the largest Q.
    """

    simulations: int = 40
    expand: int = 5
    """Next steps of a node."""
    weight: float = 1.25
    """Of the exploring term."""
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
        at_least(1, simulations=self.simulations, expand=self.expand)
        at_least(0, weight=self.weight)
        self._settings.check(self.expand)

    def __call__(self, context: DecodeContext) -> Decoding:
        search = ValueSearch(self.weight)
        for _ in range(self.simulations):
            if search.nodes[0].closed:
                break
            at = search.select()
            if at:
                search.back_up(at)
            yield from self._expand(context, search, at)
        ended = search.best_ended()
        best = search.nodes[search.best_open() if ended is None else ended].branch
        if not best.finish:
            best = yield from self._written_out(context, best)
        return chosen(context, [best])

    def _expand(self, context: DecodeContext, search: ValueSearch, at: int) -> Generator[Request, Any, None]:
        (grown,) = yield from grow(context, [search.nodes[at].branch], self.expand, self._settings, logps=True)
        for branch in (yield from scored(context, grown, self.delimiter)):
            finished = within_length(context, branch, self._settings)
            prior = prior_of(branch.logp, branch.tokens, 1.0)
            search.add(at, finished, prior, -1.0 if finished.finish == "length" else _value(branch))
        search.close(at)

    def _written_out(self, context: DecodeContext, branch: Branch) -> Generator[Request, Any, Branch]:
        """A beginning to its end, greedily: no walk has come to one."""
        text = goes_on(branch, self.delimiter)
        room = max(1, self.max_tokens - context.count(text))
        ((completion,),) = yield Generate((context.prompt.text + text,), 1, temperature=0.0, top_p=1.0, max_tokens=room)
        return replace(branch, steps=(text + completion.text,), finish=completion.finish)

    @property
    def _settings(self) -> StepSettings:
        return StepSettings(
            self.temperature, self.top_p, self.delimiter, self.max_steps, self.step_tokens, self.max_tokens, self.seed
        )


def _value(branch: Branch) -> float:
    """The score in [-1, 1]: 2 p - 1, of a logarithm 2 sigmoid - 1."""
    return tanh(branch.score / 2) if branch.log else 2 * branch.score - 1
