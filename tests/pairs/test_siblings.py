"""Pairs from scripted samples of real tinymath problems."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.scripted import (
    ALL,
    LONG,
    OTHER,
    TEMPLATE,
    Scripted,
    context,
    counts,
    opened,
    preferences,
    run,
    spoil,
    whole,
)

from stepdpo.core.steps import join_steps, split_steps
from stepdpo.core.types import Mark, Preference, Problem, Prompt, Sampling
from stepdpo.data.templates import MixedTemplate, TextTemplate
from stepdpo.pairs.siblings import Siblings
from stepdpo.pairs.solutions import Faults


def make(
    texts: dict[str, list[str]], *asked: Problem, n: int = 2, live: int = 100, **settings: Any
) -> tuple[list[Preference], Counter[str]]:
    found = run(Siblings(**settings), Scripted(texts), asked, context(n), live)
    return preferences(found), counts(found)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_first_wrong_step_meets_a_right_one_after_the_same_prefix(index: int) -> None:
    right, wrong = LONG.solution, spoil(LONG, index)
    (preference,), found = make({opened(LONG): ["\n" + right, "\n" + wrong]}, LONG)
    assert whole(preference) == (right, wrong)
    assert preference.question == LONG.question
    assert preference.prefix.endswith(f"Step {index + 1}:")
    assert not preference.prefix.startswith("\n")
    assert preference.chosen.startswith(" ")
    assert "Step" not in preference.chosen
    assert preference.chosen_rest.startswith(f"\nStep {index + 2}:")
    assert preference.answer == LONG.answers[0]
    assert preference.meta == {
        "problem": LONG.id, "step": index, "chosen_sample": "s0", "rejected_sample": "s1",
        "chosen_right_to_the_end": True,
    }  # fmt: skip
    assert +found == {"samples": 2, "right to the end": 1, "wrong": 1, "wrong step found": 1}


def test_a_wrong_last_step_keeps_its_answer() -> None:
    index = LONG.meta["steps"] - 1
    (preference,), _ = make({opened(LONG): ["\n" + LONG.solution, "\n" + spoil(LONG, index)]}, LONG)
    assert preference.chosen.endswith(f"The answer is: {LONG.answers[0]}")
    assert (preference.chosen_rest, preference.rejected_rest) == ("", "")


def test_without_a_sibling_the_model_is_asked_to_go_on_from_the_prefix() -> None:
    head, steps = split_steps(LONG.solution)
    prefix = join_steps(head, steps[:1]) + "Step 2:"
    gold = LONG.solution[len(prefix) :]
    bad = spoil(LONG, 1, by=2)[len(prefix) :]
    texts = {opened(LONG): ["\n" + spoil(LONG, 1)], opened(LONG) + "\n" + prefix: [bad, gold, gold]}
    sampler = Scripted(texts)
    made = run(Siblings(resample=3), sampler, [LONG])
    found = preferences(made)
    assert [whole(p)[0] for p in found] == [LONG.solution]
    assert found[0].meta["chosen_sample"] == "r1"
    assert sampler.asked[1] == ([opened(LONG) + "\n" + prefix], Sampling(3, 0.8, 1.0, 99, (), 4))
    assert counts(made)["resampled"] == 3
    assert (made[0].samples, made[0].tokens) == (5, 45)
    assert not make(texts, LONG, resample=0)[0]


def test_a_solution_right_to_the_end_is_chosen_before_one_that_goes_wrong_later() -> None:
    texts = ["\n" + spoil(LONG, 2), "\n" + spoil(LONG, 1), "\n" + LONG.solution]
    found, _ = make({opened(LONG): texts}, LONG, n=3)
    assert [(p.meta["step"], p.meta["chosen_sample"]) for p in found] == [(2, "s2"), (1, "s2")]
    found, _ = make({opened(LONG): texts[:2]}, LONG, n=2, resample=0)
    assert [(p.meta["step"], p.meta["chosen_sample"]) for p in found] == [(1, "s0")]
    assert found[0].meta["chosen_right_to_the_end"] is False
    assert whole(found[0]) == (texts[0][1:], texts[1][1:])


def test_pairs_are_distinct_and_few() -> None:
    texts = ["\n" + LONG.solution] + ["\n" + spoil(LONG, i, by) for by in (1, 1, 2, 3) for i in (0, 1)]
    found, _ = make({opened(LONG): texts}, LONG, n=9)
    assert [p.meta["step"] for p in found] == [0, 1, 0, 1]
    assert len({(p.prefix, p.rejected) for p in found}) == 4
    few, _ = make({opened(LONG): texts}, LONG, n=9, max_pairs_per_problem=2)
    assert few == found[:2]


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda text: text[1:], "not in the template's form"),
        (lambda text: "\nI do not know.", "without steps"),
        (lambda text: text.rpartition(" ")[0] + f" {LONG.answers[0]}", "right answer over a wrong step"),
    ],
)
def test_what_cannot_be_used_is_counted(change: Callable[[str], str], count: str) -> None:
    found, seen = make({opened(LONG): ["\n" + LONG.solution, change("\n" + spoil(LONG, 1))]}, LONG)
    assert found == []
    assert seen[count] == 1


def test_cut_solutions_are_not_used() -> None:
    sampler = Scripted({opened(LONG): ["\n" + LONG.solution, "\n" + spoil(LONG, 1)]}, finish="length")
    (finished,) = run(Siblings(), sampler, [LONG])
    assert not finished.result.preferences
    assert finished.result.counts["cut at max_tokens"] == 2


def test_groups_of_problems_do_not_change_the_pairs() -> None:
    texts = {opened(p): ["\n" + p.solution, "\n" + spoil(p, 1)] for p in (LONG, OTHER)}
    together, _ = make(texts, LONG, OTHER)
    apart, _ = make(texts, LONG, OTHER, live=1)
    assert together == apart
    assert [p.question for p in together] == [LONG.question, OTHER.question]


def test_a_wrong_setting() -> None:
    with pytest.raises(ValueError, match="max_pairs_per_problem"):
        Siblings(max_pairs_per_problem=0)


def test_the_context_renders_the_problem() -> None:
    assert context().prompt(LONG) == Prompt(opened(LONG), "\n")


def test_every_question_may_have_a_template_of_its_own() -> None:
    plain = TextTemplate(name="p", prompt="P: {question}\nA", joint=" ")
    mixed = MixedTemplate(name="m", parts=[TEMPLATE, plain])
    asked = [p for p in ALL if p.meta["steps"] >= 3][:8]
    prompts = [mixed.render(p.question, (), None) for p in asked]  # type: ignore[arg-type]
    assert {prompt.joint for prompt in prompts} == {"\n", " "}
    texts = {
        prompt.text: [prompt.joint + p.solution, prompt.joint + spoil(p, 1)]
        for p, prompt in zip(asked, prompts, strict=True)
    }
    found = preferences(run(Siblings(), Scripted(texts), asked, replace(context(), template=mixed)))
    assert [whole(p) for p in found] == [(p.solution, spoil(p, 1)) for p in asked]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_steps_are_marked_as_the_checker_finds_them(index: int) -> None:
    right, wrong = LONG.solution, spoil(LONG, index)
    (preference,), _ = make({opened(LONG): ["\n" + right, "\n" + wrong]}, LONG)
    steps = LONG.meta["steps"]
    assert marked(right, preference.chosen_steps) == [1.0] * steps
    assert marked(wrong, preference.rejected_steps) == [1.0] * index + [0.0] + [None] * (steps - 1 - index)


def test_of_the_chosen_side_up_to_its_own_first_wrong_step() -> None:
    late = LONG.meta["steps"] - 1
    texts = {opened(LONG): ["\n" + spoil(LONG, late), "\n" + spoil(LONG, 1)]}
    (preference,), _ = make(texts, LONG, max_pairs_per_problem=1, faults=Faults.wrong, resample=0)
    assert marked(spoil(LONG, late), preference.chosen_steps) == [1.0] * late + [0.0]


def marked(text: str, steps: Sequence[Mark]) -> list[float | None]:
    """The values, once every stretch is seen to be one step of the text."""
    starts = [0, *(mark.end for mark in steps)]
    stretches = [text[start:end] for start, end in itertools.pairwise(starts)]
    assert "".join(stretches) == text
    assert all(stretch.count("Step ") == 1 and not stretch.endswith("\n") for stretch in stretches)
    return [mark.value for mark in steps]
