"""Step-DPO's three stages on scripted samples of real tinymath problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from support.scripted import LONG, Scripted, context, counts, opened, preferences, run, spoil, whole

from stepdpo.core.steps import join_steps, split_steps
from stepdpo.core.types import Problem, Sampling
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import AskJudge, JudgeFailed, ProblemResult
from stepdpo.pairs.judges.exact import Exact
from stepdpo.pairs.judges.rollouts import Rollouts, SearchStrategy
from stepdpo.pairs.judges.verdict import JudgeRequests, Verdict
from stepdpo.pairs.localise import Localise
from stepdpo.pairs.solutions import Solution

GOLD = LONG.solution
HEAD, STEPS = split_steps(GOLD)


def before(index: int) -> str:
    """The gold solution up to and with the label of a step."""
    return join_steps(HEAD, STEPS[:index]) + f"Step {index + 1}:"


def after(index: int, solution: str = GOLD) -> str:
    """What a solution goes on with from there."""
    return solution[len(before(index)) :]


def reworded(index: int, word: str = "So") -> str:
    """The rest of the gold solution from a step, begun with a word more."""
    return f" {word}," + after(index)


def make(
    first: list[str], rectified: dict[int, list[str]], judge: Any = None, **settings: Any
) -> tuple[ProblemResult, Scripted]:
    """One problem: solutions of the first stage, and what follows the gold prefix before each step."""
    texts = {opened(LONG): ["\n" + text for text in first]}
    texts |= {opened(LONG) + "\n" + before(index): some for index, some in rectified.items()}
    sampler = Scripted(texts)
    (finished,) = run(Localise(**settings), sampler, [LONG], context(len(first), judge=judge or Exact()))
    return finished, sampler


@pytest.mark.parametrize("index", [0, 1, 2])
def test_error_localised_and_rectified(index: int) -> None:
    wrong = spoil(LONG, index)
    finished, sampler = make([GOLD, wrong], {index: [after(index, wrong), after(index)]}, rectify=4)
    (preference,) = finished.result.preferences
    assert whole(preference) == (GOLD, wrong)
    assert preference.prefix == before(index)
    assert preference.chosen.startswith(" ")
    assert "Step" not in preference.chosen
    assert preference.chosen_rest.startswith(f"\nStep {index + 2}:")
    assert preference.answer == LONG.answers[0]
    assert preference.meta == {
        "problem": LONG.id, "step": index, "chosen_sample": "r1", "rejected_sample": "s1", "prefix_rate": 0.5,
    }  # fmt: skip
    assert sampler.asked[1] == ([opened(LONG) + "\n" + before(index)], Sampling(4, 0.8, 1.0, 99, (), 4))
    assert finished.result.outcome == "pairs"
    assert +Counter(finished.result.counts) == {
        "samples": 2, "right": 1, "wrong": 1, "judged": 1, "wrong step found": 1,
        "sampled from before it": 4, "right from before it": 2,
    }  # fmt: skip


def test_a_wrong_last_step_keeps_its_answer() -> None:
    index = len(STEPS) - 1
    finished, _ = make([spoil(LONG, index)], {index: [after(index)]})
    (preference,) = finished.result.preferences
    assert preference.chosen.endswith(f"The answer is: {LONG.answers[0]}")
    assert (preference.chosen_rest, preference.rejected_rest) == ("", "")


def test_a_label_within_a_sentence_is_no_step() -> None:
    """Neither the place of the wrong step nor its end is found by the words `Step 2:` alone."""
    aside = " (Step 2: comes next, then Step 3:)"
    wrong = spoil(LONG, 1).replace("\nStep 2:", f"{aside}\nStep 2:")
    prefix = wrong[: wrong.index("\nStep 2:") + len("\nStep 2:")]
    texts = {opened(LONG): ["\n" + wrong], opened(LONG) + "\n" + prefix: [after(1)]}
    (finished,) = run(Localise(), Scripted(texts), [LONG], context(1, judge=Saying(1)))
    (preference,) = finished.result.preferences
    assert preference.prefix == prefix
    assert whole(preference) == (prefix + after(1), wrong)


@dataclass(frozen=True)
class Saying:
    """A judge that always says the same of a wrong solution, and what it is told of a right one."""

    error: int | None
    of_right: int | None = None
    needs: frozenset[str] = frozenset()

    def __call__(self, problem: Problem, solution: Solution, given: Context) -> JudgeRequests:
        yield from ()
        return Verdict(self.of_right if solution.correct else self.error)


@pytest.mark.parametrize(
    ("first", "rectified", "settings", "outcome"),
    [
        ([GOLD, GOLD], {}, {}, "no wrong sample"),
        (["I do not know."], {}, {}, "no usable sample"),
        ([spoil(LONG, 1)], {1: [after(1)]}, {"judge": Saying(None)}, "judge found no wrong step"),
        ([spoil(LONG, 1)], {1: [after(1)]}, {"judge": Saying(99)}, "judge found no wrong step"),
        ([spoil(LONG, 1)], {1: [after(1, spoil(LONG, 1))]}, {}, "not rectified"),
        ([spoil(LONG, 1)], {2: [after(1)]}, {}, "not rectified"),
        # the judge errs: the step it found is the right one, and it leads to the right answer
        ([spoil(LONG, 1)], {0: [after(0)]}, {"judge": Saying(0)}, "only the wrong step again"),
        ([GOLD, spoil(LONG, 1)], {1: [after(1)]}, {"max_solve_rate": 0.4}, "solve rate outside the window"),
        ([GOLD, spoil(LONG, 1)], {1: [after(1)]}, {"min_solve_rate": 0.6}, "solve rate outside the window"),
        (
            [spoil(LONG, 1)],
            {1: [after(1)]},
            {"max_prefix_rate": 0.9},
            "solve rate before the wrong step outside the window",
        ),
        (
            [spoil(LONG, 1)],
            {1: [after(1)]},
            {"check_chosen": True, "judge": Saying(1, of_right=1)},
            "judge found the right step wrong",
        ),
    ],
)
def test_why_a_problem_gives_no_pair(
    first: list[str], rectified: dict[int, list[str]], settings: dict[str, Any], outcome: str
) -> None:
    finished, _ = make(first, rectified, **settings)
    assert (finished.result.preferences, finished.result.outcome) == ((), outcome)


def test_one_text_is_judged_once_and_no_more_than_asked() -> None:
    wrong = [spoil(LONG, 1), spoil(LONG, 1), spoil(LONG, 2), spoil(LONG, 0)]
    rectified = {k: [after(k)] for k in range(3)}
    for most, steps in ((1, [1]), (2, [1, 2]), (9, [1, 2, 0])):
        finished, _ = make(wrong, rectified, max_per_question=most)
        assert [p.meta["step"] for p in finished.result.preferences] == steps
        assert finished.result.counts["judged"] == len(steps)
        assert finished.result.counts["wrong"] == 4


def test_a_wrong_step_makes_one_pair_whatever_follows_it() -> None:
    """Two solutions that differ after the same wrong step only."""
    other = spoil(LONG, 1).rpartition(": ")[0] + ": 77777"
    finished, sampler = make([spoil(LONG, 1), other], {1: [after(1)]}, max_per_question=2)
    assert len(finished.result.preferences) == 1
    assert len(sampler.asked) == 2


def test_right_steps_are_distinct_differ_from_the_wrong_one_and_are_few() -> None:
    """White space does not make a step another one; the wrong step may lead to a right answer by luck."""
    wrong = spoil(LONG, 1)
    lucky = after(1, wrong).rpartition(": ")[0] + f": {LONG.answers[0]}"
    samples = [lucky, after(1), after(1).replace(" = ", "  = ", 1), reworded(1), after(1), after(1, wrong)]
    for most, number in ((1, 1), (2, 2), (9, 2)):
        finished, _ = make([wrong], {1: samples}, rectify=6, max_chosen_per_prefix=most, max_pairs_per_problem=9)
        assert [whole(p)[0] for p in finished.result.preferences] == [GOLD, before(1) + reworded(1)][:number]
        assert finished.result.counts["right with the wrong step"] == 1
        assert finished.result.preferences[0].meta["prefix_rate"] == round(5 / 6, 4)


def test_wrong_steps_after_one_prefix_take_turns_and_it_is_sampled_from_once() -> None:
    wrong = [spoil(LONG, 1, by) for by in (1, 2, 3)]
    finished, sampler = make(wrong, {1: [after(1), reworded(1)]}, max_per_question=3)
    assert [whole(p) for p in finished.result.preferences] == [
        (GOLD, wrong[0]),
        (before(1) + reworded(1), wrong[1]),
        (GOLD, wrong[2]),
    ]
    assert [params.n for _, params in sampler.asked] == [3, 20]


def test_new_prefixes_come_first_when_pairs_are_few() -> None:
    wrong = [spoil(LONG, 1), spoil(LONG, 1, 2), spoil(LONG, 2)]
    rectified = {k: [after(k), reworded(k)] for k in (1, 2)}
    finished, _ = make(wrong, rectified, max_per_question=3, max_pairs_per_problem=2)
    assert [p.meta["step"] for p in finished.result.preferences] == [1, 2]
    finished, _ = make(wrong, rectified, max_per_question=3, max_pairs_per_problem=3, max_chosen_per_prefix=2)
    assert [p.meta["step"] for p in finished.result.preferences] == [1, 1, 2]


def test_the_right_step_can_be_checked() -> None:
    """A right answer over a wrong step is not chosen when the judge looks at it."""
    bad = spoil(LONG, 1, by=2)
    lucky = after(1, bad).rpartition(": ")[0] + f": {LONG.answers[0]}"
    late = after(1, spoil(LONG, 2)).rpartition(": ")[0] + f": {LONG.answers[0]}"
    plain, _ = make([spoil(LONG, 1)], {1: [lucky, after(1)]})
    assert [whole(p)[0] for p in plain.result.preferences] == [before(1) + lucky]
    checked, _ = make([spoil(LONG, 1)], {1: [lucky, after(1)]}, check_chosen=True)
    assert [whole(p)[0] for p in checked.result.preferences] == [GOLD]
    assert checked.result.counts["right step found wrong"] == 1
    later, _ = make([spoil(LONG, 1)], {1: [late]}, check_chosen=True)
    assert [whole(p)[0] for p in later.result.preferences] == [before(1) + late]


def test_right_samples_of_the_first_stage_are_used_where_asked() -> None:
    finished, _ = make([GOLD, spoil(LONG, 1)], {1: [reworded(1)]}, reuse=True)
    assert [p.meta["chosen_sample"] for p in finished.result.preferences] == ["s0"]
    finished, _ = make([GOLD, spoil(LONG, 1)], {1: [""]}, reuse=True)
    assert [p.meta["prefix_rate"] for p in finished.result.preferences] == [0.0]
    finished, _ = make([GOLD, spoil(LONG, 1)], {1: [""]})
    assert finished.result.outcome == "not rectified"


def test_what_the_judge_sampled_counts_among_the_rectified() -> None:
    """Before the wrong step the judge draws 2, both right; 3 more are drawn to make 5."""
    wrong = spoil(LONG, 1)
    rectified = {1: [after(1), after(1), reworded(1)], 2: [""], 3: [""]}
    judge = Rollouts(rollouts=4, search=SearchStrategy.binary)
    finished, sampler = make([wrong], rectified, judge, rectify=5, max_chosen_per_prefix=9)
    asked = [params.n for prompts, params in sampler.asked if prompts[0].endswith(before(1))]
    assert asked == [2, 3]
    assert finished.result.counts["sampled from before it"] == 3
    assert finished.result.counts["judge's roll-outs used again"] == 2
    assert [p.meta["prefix_rate"] for p in finished.result.preferences] == [1.0, 1.0]
    assert finished.samples == sum(len(prompts) * params.n for prompts, params in sampler.asked)


@dataclass(frozen=True)
class Consulting:
    """A judge that asks another model."""

    needs: frozenset[str] = frozenset()

    def __call__(self, problem: Problem, solution: Solution, given: Context) -> JudgeRequests:
        try:
            reply = yield AskJudge(solution.text)
        except JudgeFailed:
            reply = yield AskJudge("once more")
        return Verdict(int(reply), counts={"consulted": 1})


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_judges_that_ask_another_model(lost: int) -> None:
    """The judge hears that no reply came; if it gives up, the problem is to be tried again."""
    replies: list[Any] = [*[JudgeFailed("down", "what")] * lost, "1"]

    def ask_judge(messages: list[str]) -> list[Any]:
        return [replies.pop(0) for _ in messages]

    texts = {opened(LONG): ["\n" + spoil(LONG, 1)], opened(LONG) + "\n" + before(1): [after(1)]}
    found = run(Localise(), Scripted(texts), [LONG], context(1, judge=Consulting()), ask_judge=ask_judge)  # type: ignore[arg-type]
    if lost < 2:
        assert [whole(p) for p in preferences(found)] == [(GOLD, spoil(LONG, 1))]
        assert counts(found)["consulted"] == 1
    else:
        assert (found[0].failed, found[0].result.outcome, found[0].judge_reply) == (True, "down", "what")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rectify": 0},
        {"max_per_question": 0},
        {"max_chosen_per_prefix": 0},
        {"min_solve_rate": 0.9, "max_solve_rate": 0.1},
        {"max_prefix_rate": 1.5},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("min_").removeprefix("max_")):
        Localise(**wrong)


@dataclass(frozen=True)
class Asked:
    """A judge that is asked, and finds step 2 wrong wherever it is."""

    needs = frozenset[str]()

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests:
        yield AskJudge(solution.text)
        return Verdict(1)


def test_a_judge_that_costs_nothing_says_how_the_chosen_side_goes_on() -> None:
    lucky = after(1).replace(STEPS[2], STEPS[2].replace("= ", "= 1"))  # right in the end over a wrong third step
    assert lucky != after(1)
    finished, _ = make([spoil(LONG, 1)], {1: [lucky]}, rectify=1)
    (preference,) = finished.result.preferences
    values = [mark.value for mark in preference.chosen_steps]
    assert values[:3] == [1.0, 1.0, 0.0]
    assert set(values[3:]) <= {None}
    assert [mark.value for mark in preference.rejected_steps[:3]] == [1.0, 0.0, None]
    assert preference.chosen_steps[-1].end == len(whole(preference)[0])


def test_one_that_must_be_asked_is_not_asked_about_it() -> None:
    texts = {opened(LONG): ["\n" + spoil(LONG, 1)], opened(LONG) + "\n" + before(1): [after(1)]}
    asked: list[str] = []

    def answer(messages: Any) -> list[str]:
        asked.extend(messages)
        return ["" for _ in messages]

    given = context(1, judge=Asked())
    (finished,) = run(Localise(rectify=1), Scripted(texts), [LONG], given, ask_judge=answer)
    (preference,) = finished.result.preferences
    assert asked == [spoil(LONG, 1)]
    # The chosen step counts as right, since the pair says so; of what follows nobody knows.
    assert [mark.value for mark in preference.chosen_steps] == [1.0, 1.0, *[None] * (len(STEPS) - 2)]
