"""What a way of making preferences may use; a later one that needs more adds a field here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stepdpo.protocols import Sampler, Template, Tokenizer
from stepdpo.records import Completion, Grade, Problem, Prompt, Sampling
from stepdpo.tokenise import opened

GradeAll = Callable[[Sequence[tuple[str, Problem]]], list[Grade]]


@dataclass(frozen=True)
class Tools:
    """Handed to every PairSource."""

    sampler: Sampler
    template: Template
    tokenizer: Tokenizer
    sampling: Sampling
    """How solutions are sampled; `n` is the number a problem."""
    grade: GradeAll
    """Grades of (response, problem) pairs, by their final answers."""
    checker: Any = None
    """Exact step checker of the task: `first_error(problem, steps) -> int | None`."""
    judge: Any = None
    """Finds a wrong step where no exact checker can."""
    valuer: Any = None
    """How promising is a beginning."""
    yields: Counter[str] = field(default_factory=Counter)
    """What came of each stage: the source counts, the verb prints."""

    def prompt(self, problem: Problem) -> Prompt:
        """The problem as the model reads it."""
        return opened(self.template.render(problem.question, (), self.tokenizer), self.tokenizer)

    def sample(self, prompts: Sequence[str], n: int) -> list[list[Completion]]:
        """`n` completions a prompt; nothing is asked of the sampler for no prompts."""
        return self.sampler.sample(prompts, replace(self.sampling, n=n)) if prompts and n else [[] for _ in prompts]
