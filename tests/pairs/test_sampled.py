"""Pairs from scripted samples of real tinymath problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from stepdpo.grade.strict import Strict
from stepdpo.pairs.sampled import Sampled
from stepdpo.pairs.tools import Tools
from stepdpo.records import Completion, Preference, Problem, Prompt, Sampling
from stepdpo.steps import join_steps, split_steps
from stepdpo.template import MixedTemplate, TextTemplate
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

    texts: dict[str, list[str]]
    finish: str = "eos"
    asked: list[tuple[list[str], Sampling]] = field(default_factory=list)

    def sample(self, prompts: Sequence[str], params: Sampling) -> list[list[Completion]]:
        self.asked.append((list(prompts), params))
        found = [[self.texts.get(p, [""])[i % len(self.texts.get(p, [""]))] for i in range(params.n)] for p in prompts]
        return [[Completion(text, 9, self.finish) for text in some] for some in found]


def opened(problem: Problem) -> str:
    return f"Q: {problem.question}\nA"


def spoil(problem: Problem, index: int, by: int = 1) -> str:
    """The gold solution with a wrong number in one step, and a wrong final answer."""
    head, steps = split_steps(problem.solution)
    result = steps[index].partition(" = ")[2].split()[0]
    steps[index] = steps[index].replace(f" = {result}", f" = {int(result) + by}")
    wrong = join_steps(head, steps).rpartition("The answer is: ")
    return f"{wrong[0]}{wrong[1]}{int(wrong[2]) + 1000}"


def tools(sampler: Scripted, n: int = 2) -> Tools:
    grader = Strict()

    def grade(items: Sequence[tuple[str, Problem]]) -> list[Any]:
        return [grader.grade(text, problem) for text, problem in items]

    sampling = Sampling(n=n, temperature=0.8, max_tokens=99, seed=4)
    return Tools(sampler, TEMPLATE, tokenizer=TOKENIZER, sampling=sampling, grade=grade, checker=TinymathChecker())


def make(texts: dict[str, list[str]], *asked: Problem, n: int = 2, **settings: Any) -> tuple[list[Preference], Tools]:
    given = tools(Scripted(texts), n)
    return list(Sampled(**settings)(asked, given)), given


def whole(preference: Preference) -> tuple[str, str]:
    return (
        preference.prefix + preference.chosen + preference.chosen_rest,
        preference.prefix + preference.rejected + preference.rejected_rest,
    )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_first_wrong_step_meets_a_right_one_after_the_same_prefix(index: int) -> None:
    right, wrong = LONG.solution, spoil(LONG, index)
    (preference,), given = make({opened(LONG): ["\n" + right, "\n" + wrong]}, LONG)
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
    assert given.yields == {
        "problems": 1, "samples": 2, "right to the end": 1, "right answer over a wrong step": 0, "wrong": 1,
        "wrong step found": 1, "resampled": 0, "pairs": 1,
    }  # fmt: skip


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
    found, given = make(texts, LONG, resample=3)
    assert [whole(p)[0] for p in found] == [LONG.solution]
    assert found[0].meta["chosen_sample"] == "r1"
    sampler: Any = given.sampler
    assert sampler.asked[1] == ([opened(LONG) + "\n" + prefix], Sampling(3, 0.8, 1.0, 99, (), 4))
    assert given.yields["resampled"] == 3
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
    found, given = make({opened(LONG): ["\n" + LONG.solution, change("\n" + spoil(LONG, 1))]}, LONG)
    assert found == []
    assert given.yields[count] == 1


def test_cut_solutions_are_not_used() -> None:
    given = tools(Scripted({opened(LONG): ["\n" + LONG.solution, "\n" + spoil(LONG, 1)]}, finish="length"))
    assert list(Sampled()([LONG], given)) == []
    assert given.yields["cut at max_tokens"] == 2


def test_rounds_of_problems_do_not_change_the_pairs() -> None:
    texts = {opened(p): ["\n" + p.solution, "\n" + spoil(p, 1)] for p in (LONG, OTHER)}
    together, _ = make(texts, LONG, OTHER)
    apart, given = make(texts, LONG, OTHER, batch=1)
    assert together == apart
    assert [p.question for p in together] == [LONG.question, OTHER.question]
    assert given.yields["problems"] == 2


def test_a_wrong_setting() -> None:
    with pytest.raises(ValueError, match="max_pairs_per_problem"):
        Sampled(max_pairs_per_problem=0)


def test_tools_render_the_problem() -> None:
    assert tools(Scripted({})).prompt(LONG) == Prompt(opened(LONG), "\n")


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
    found = list(Sampled()(asked, replace(tools(Scripted(texts)), template=mixed)))
    assert [whole(p) for p in found] == [(p.solution, spoil(p, 1)) for p in asked]
