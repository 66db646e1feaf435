"""Stand-ins for a model: what it writes is given by the test, so that a way of making pairs can be followed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepdpo.core.steps import join_steps, split_steps
from stepdpo.core.types import Completion, Grade, Preference, Problem, Sampling
from stepdpo.crew.groups import groups
from stepdpo.data.templates import TextTemplate
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import ProblemResult
from stepdpo.pairs.engine.scheduler import Scheduler
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems
from stepdpo.tinymath.tokenizer import build

ALL = problems("preference", 60)
LONG = next(p for p in ALL if p.meta["steps"] >= 4)
OTHER = next(p for p in ALL if p.meta["steps"] >= 3 and p is not LONG)
TOKENIZER = build()
TEMPLATE = TextTemplate(name="t", prompt="Q: {question}\nA", joint="\n")


@dataclass
class Scripted:
    """Answers a prompt with the texts written for it, in turn; records what it was asked."""

    texts: Mapping[str, Sequence[str]]
    finish: str = "eos"
    asked: list[tuple[list[str], Sampling]] = field(default_factory=list)

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.asked.append((list(prompts), params))
        found = []
        for prompt, stream in zip(prompts, streams or [0] * len(prompts), strict=True):
            texts = self.texts.get(prompt, [""])
            found.append([texts[(stream * params.n + i) % len(texts)] for i in range(params.n)])
        return [[Completion(text, 9, self.finish) for text in some] for some in found]


def opened(problem: Problem) -> str:
    """The problem as TEMPLATE writes it."""
    return f"Q: {problem.question}\nA"


def spoil(problem: Problem, index: int, by: int = 1) -> str:
    """The gold solution with a wrong number in one step, and a wrong final answer."""
    head, steps = split_steps(problem.solution)
    result = steps[index].partition(" = ")[2].split()[0]
    steps[index] = steps[index].replace(f" = {result}", f" = {int(result) + by}")
    wrong = join_steps(head, steps).rpartition("The answer is: ")
    return f"{wrong[0]}{wrong[1]}{int(wrong[2]) + 1000}"


def context(n: int = 2, **fields: Any) -> Context:
    """What a method is given, with the exact checker."""
    sampling = Sampling(n=n, temperature=0.8, max_tokens=99, seed=4)
    return Context(
        **{"template": TEMPLATE, "tokenizer": TOKENIZER, "sampling": sampling, "checker": TinymathChecker(), **fields}
    )


def grade(items: Sequence[tuple[str, Problem]]) -> list[Grade]:
    """The strict grader, in this process."""
    return [Strict().grade(text, problem) for text, problem in items]


def run(
    method: Any,
    sampler: Any,
    asked: Sequence[Problem],
    given: Context | None = None,
    live: int = 100,
    ask_judge: Callable[[Sequence[str]], list[Any]] | None = None,
) -> list[ProblemResult]:
    """What comes of the problems, in the order in which they finish."""
    given = given or context()
    scheduler = Scheduler(sampler, given.sampling, grade, ask_judge)
    return [finished for group in groups(asked, live, 1) for finished in scheduler.run(group, method, given)]


def preferences(finished: Sequence[ProblemResult]) -> list[Preference]:
    """All pairs of all problems."""
    return [preference for one in finished for preference in one.result.preferences]


def counts(finished: Sequence[ProblemResult]) -> Counter[str]:
    """What came of each stage, over all problems."""
    total: Counter[str] = Counter()
    for one in finished:
        total.update(one.result.counts)
    return total


def whole(preference: Preference) -> tuple[str, str]:
    """Both sides of a pair as solutions."""
    return (
        preference.prefix + preference.chosen + preference.chosen_rest,
        preference.prefix + preference.rejected + preference.rejected_rest,
    )
