"""What `inspect` looks at: pairs of a data set, or a model's answers that an exact checker has looked through."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Checker, Level, SamplerSpec, Template
from stepdpo.core.steps import split_steps, step_ends
from stepdpo.core.types import Mark, Pair, Preference, Sampling
from stepdpo.data.fields import RowError
from stepdpo.data.preference_file import sides
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.validation import Loaded
from stepdpo.models.load import ModelSpec
from stepdpo.pairs.solutions import Solution
from stepdpo.tokens.tokenization import question_prompt


@dataclass(frozen=True)
class Responses:
    """Pairs to be scored; those of a task have a single response each."""

    pairs: tuple[Pair, ...]
    places: tuple[str, ...]
    """Where each comes from: a line of a file, or a problem and the number of its sample."""
    left_out: Counter[str]


def of_data(loaded: Loaded, level: Level, limit: int | None, heldout_first: bool) -> Responses:
    """Preferences, evenly spread, cut to the level. UserError where there are none.

    With `heldout_first` what was held out is taken alone, where anything was.
    """
    kept = list(zip(loaded.preferences, _places(loaded.places, len(loaded.preferences)), strict=True))
    held = list(zip(loaded.heldout, _places(loaded.heldout_places, len(loaded.heldout)), strict=True))
    rows = held if heldout_first and held else kept + held
    if not rows:
        raise UserError("dataset: there is nothing in it to look at")
    count = min(limit or len(rows), len(rows))
    chosen = [rows[number * len(rows) // count] for number in range(count)]
    pairs = tuple(level(with_steps(preference)) for preference, _ in chosen)
    return Responses(pairs, tuple(place for _, place in chosen), Counter())


def _places(places: Sequence[str], count: int) -> Sequence[str]:
    return places or [f"row {number}" for number in range(count)]


def with_steps(preference: Preference) -> Preference:
    """The preference with steps marked on each side that has no marks, as its `Step k:` tell them apart.

    Of two steps after shared ones the data say that one is right and the other the first wrong one (Step-DPO's rows),
    unless they say how right each is: a value in [-1, 1]. Of whole responses they say nothing about steps.
    """
    p = preference
    changes: dict[str, Any] = {}
    stepwise = bool(p.rejected and p.prefix and not p.whole)
    for side, value, known in (("chosen", p.chosen_value, 1.0), ("rejected", p.rejected_value, 0.0)):
        if getattr(p, f"{side}_steps") or not getattr(p, side):
            continue
        own = (value + 1) / 2 if value is not None else known if stepwise else None
        ends = step_ends(*split_steps("".join((p.prefix, *sides(p, side)))))
        changes[f"{side}_steps"] = tuple(_labelled(ends, len(p.prefix), own, stepwise and value is None))
    return dataclasses.replace(p, **changes)


def _labelled(ends: Sequence[int], at: int, own: float | None, right_before: bool) -> list[Mark]:
    """Marks of which the first that ends after `at` has the label `own`, and those after it none."""
    marks = [Mark(end, 1.0 if right_before else None) for end in ends if end <= at]
    after = [end for end in ends if end > at]
    return marks + [Mark(end, own if number == 0 else None) for number, end in enumerate(after)]


def of_task(
    task: TaskSpec, writer: ModelSpec, sampler: SamplerSpec, template: Template, sampling: Sampling, limit: int | None
) -> Responses:
    """What a model answers, with the first wrong step of each answer. UserError for a task without an exact checker."""
    checker: Checker | None = task.checker
    if checker is None:
        raise UserError(
            f"task {task.name}: nothing tells its wrong steps exactly; inspect data with marked steps instead "
            "(dataset=FILE), or task=tinymath"
        )
    tokenizer = writer.tokenizer()
    problems = list(islice(task.problems(), limit))
    left_out: Counter[str] = Counter()
    asked, prompts = [], []
    for problem in problems:
        try:
            prompts.append(question_prompt(template, problem.question, (), tokenizer))
            asked.append(problem)
        except RowError as error:
            left_out[str(error)] += 1
    with sampler.open(writer) as opened:
        written = opened.sample([prompt.text for prompt in prompts], sampling)
    pairs, places = [], []
    for problem, prompt, completions in zip(asked, prompts, written, strict=True):
        for number, completion in enumerate(completions):
            text = completion.text.removeprefix(prompt.joint)
            head, steps = split_steps(text)
            if completion.finish == "length":
                left_out["answers cut at max_tokens"] += 1
            elif not completion.text.startswith(prompt.joint):
                left_out["answers that do not begin as the template has it"] += 1
            elif not steps:
                left_out["answers without steps"] += 1
            else:
                wrong = checker.first_error(problem, steps)
                marks = Solution("", head, tuple(steps), False, wrong, checked=True).marks()
                pairs.append(Pair(problem.question, "", text, "", chosen_ends=True, chosen_steps=marks))
                places.append(f"{problem.id}, answer {number}" if sampling.n > 1 else problem.id)
    return Responses(tuple(pairs), tuple(places), left_out)
