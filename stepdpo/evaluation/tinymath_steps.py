"""Solutions of the embedded miniature, whose first wrong step an exact checker tells: offline, of any number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least, below_one, positive
from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, Problem, Sampling
from stepdpo.data.labelled_solutions import LabelledSolution
from stepdpo.data.problem_stream import check_limit
from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.load import Pretrained
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import Stories, check_split, problems
from stepdpo.tokens.tokenization import question_prompt


@dataclass(frozen=True)
class TinymathSteps:
    """The solutions that one model samples, whichever is asked about them: so all are asked about the same."""

    name: str = "tinymath_steps"
    writer: str = "pkg://tinymath/model"
    """Who wrote them: a folder or hub id."""
    split: str = "test"
    stories: Stories = Stories.short
    count: int = 300
    """How many problems."""
    samples: int = 2
    """Solutions a problem; equal ones of a problem count once."""
    temperature: float = 1.0
    max_tokens: int = 400
    threshold: float | None = None
    heldout: float = 0.25
    seed: int = 0
    limit: int | None = None
    """The first so many problems only."""
    checker: Checker = field(default_factory=TinymathChecker)

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_limit(self.limit)
        check_split(self.split)
        at_least(1, count=self.count, samples=self.samples, max_tokens=self.max_tokens)
        at_least(0, seed=self.seed)
        positive(temperature=self.temperature)
        below_one(heldout=self.heldout)

    def problems(self) -> list[Problem]:
        """The problems, made by rule."""
        return list(problems(self.split, min(self.count, self.limit or self.count), self.seed, self.stories))

    def solutions(self) -> list[LabelledSolution]:
        """Sampled on this machine; those that ran into `max_tokens`, or have no step, are left out."""
        model = Pretrained(self.writer)
        tokenizer = model.tokenizer()
        template, _ = resolve(NativeTemplate(), model.source, tokenizer)
        made = self.problems()
        prompts = [question_prompt(template, problem.question, (), tokenizer) for problem in made]
        sampling = Sampling(self.samples, self.temperature, 1.0, self.max_tokens, (), self.seed)
        with TransformersSampler(progress=False).open(model) as sampler:
            drawn = sampler.sample([prompt.text for prompt in prompts], sampling)
        return [
            one
            for problem, prompt, responses in zip(made, prompts, drawn, strict=True)
            for one in self._of(problem, prompt.joint, {r.text: None for r in responses if r.finish != "length"})
        ]

    def _of(self, problem: Problem, joint: str, texts: dict[str, None]) -> Iterator[LabelledSolution]:
        for number, text in enumerate(texts):
            head, steps = split_steps(text.removeprefix(joint))
            if steps:
                error = self.checker.first_error(problem, steps)
                right = Strict().grade(text, problem).verdict == CORRECT
                first = -1 if error is None else error
                yield LabelledSolution(f"{problem.id}-{number}", problem, head, tuple(steps), first, "", right)
