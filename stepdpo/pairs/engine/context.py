"""What a way of making preferences may use; a later one that needs more adds a field here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepdpo.core.protocols import Template, Tokenizer
from stepdpo.core.types import Problem, Prompt, Sampling, Turn
from stepdpo.tokens.tokenization import opened


@dataclass(frozen=True)
class Tools:
    """Handed to every PairSource and Judge. Models are asked, not called: see `asks`."""

    template: Template
    tokenizer: Tokenizer
    sampling: Sampling
    """How solutions are sampled unless an ask says otherwise; `n` is the number a problem."""
    checker: Any = None
    """Exact step checker of the task: `first_error(problem, steps) -> int | None`."""
    judge: Any = None
    """Finds the first wrong step: a Judge."""

    def prompt(self, problem: Problem, history: Sequence[Turn] = ()) -> Prompt:
        """The problem as the model reads it."""
        return opened(self.template.render(problem.question, history, self.tokenizer), self.tokenizer)
