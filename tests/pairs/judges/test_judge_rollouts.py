"""The first wrong step by roll-outs whose outcomes are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
from support.scripted import LONG, Scripted, context, opened, run, spoil

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Requests, Result
from stepdpo.pairs.judges.rollouts import Rollouts, SearchStrategy
from stepdpo.pairs.judges.verdict import Verdict
from stepdpo.pairs.solutions import Solution

GOOD, BAD = f" so\nThe answer is: {LONG.answers[0]}", " so\nThe answer is: 99999"
HEAD, STEPS = split_steps(spoil(LONG, 1))
FIVE = Solution(
    "s0", HEAD, (*STEPS[:3], "Step 4: and\n", f"Step 5: so\nThe answer is: {int(LONG.answers[0]) + 7}"), False
)
"""A wrong solution of five steps; what its steps say is no matter to roll-outs."""


@dataclass
class Asking:
    """A method that does nothing but ask the judge."""

    judge: Rollouts
    solution: Solution
    verdicts: list[Verdict] = field(default_factory=list)

    def __call__(self, problem: Problem, given: Context) -> Requests:
        self.verdicts.append((yield from self.judge(problem, self.solution, given)))
        return Result()


def at(index: int, solution: Solution = FIVE) -> str:
    """The prompt from which the roll-outs before a step begin."""
    return opened(LONG) + "\n" + solution.prefix(index)


def judged(
    outcomes: Mapping[int, Sequence[bool]], solution: Solution = FIVE, **settings: Any
) -> tuple[Verdict, Scripted]:
    """The verdict where roll-outs before step k end right or wrong as given, in turn."""
    texts = {at(k, solution): [GOOD if good else BAD for good in some] for k, some in outcomes.items()}
    asking, sampler = Asking(Rollouts(**{"search": SearchStrategy.binary, **settings}), solution), Scripted(texts)
    run(asking, sampler, [LONG])
    return asking.verdicts[0], sampler


def tried(sampler: Scripted) -> list[int]:
    """Before which steps roll-outs were made, in order."""
    return [next(k for k in range(5) if at(k) == prompt) for (prompt,), _ in sampler.asked]


@pytest.mark.parametrize("search", list(SearchStrategy))
@pytest.mark.parametrize("wrong", range(5))
def test_every_search_finds_where_successes_end(wrong: int, search: SearchStrategy) -> None:
    """The first wrong step is k: roll-outs from before step i succeed iff i <= k."""
    verdict, _ = judged({k: [k <= wrong] for k in range(5)}, search=search)
    assert verdict.error == wrong


@pytest.mark.parametrize(
    ("search", "wrong", "order"),
    [
        # between 0 and 5: 2; between 2 and 5: 3; between 3 and 5: 4
        (SearchStrategy.binary, 4, [2, 3, 4]),
        # between 0 and 5: 2; between 0 and 2: 1; nothing known of the beginning yet
        (SearchStrategy.binary, 0, [2, 1, 0]),
        (SearchStrategy.binary, 1, [2, 1]),
        (SearchStrategy.linear, 1, [1, 2]),
        (SearchStrategy.linear, 4, [1, 2, 3, 4]),
        (SearchStrategy.backward, 3, [4, 3]),
        (SearchStrategy.backward, 0, [4, 3, 2, 1, 0]),
    ],
)
def test_which_prefixes_are_tried(search: SearchStrategy, wrong: int, order: list[int]) -> None:
    verdict, sampler = judged({k: [k <= wrong] for k in range(5)}, search=search, rollouts=1)
    assert tried(sampler) == order
    assert verdict.counts == {"judge: prefixes": len(order), "judge: roll-outs": len(order)}


@pytest.mark.parametrize("search", [search for search in SearchStrategy if search is not SearchStrategy.posterior])
def test_whatever_is_seen_successes_end_at_the_step(search: SearchStrategy) -> None:
    """All 32 patterns of luck: a success before the step, none after it, and the last or the first such place.

    Where nothing was found before the first step either, there is no verdict.
    """
    for luck in product([False, True], repeat=5):
        verdict, _ = judged({k: [good] for k, good in enumerate(luck)}, search=search)
        ends = [k for k in range(5) if luck[k] and not [*luck, False][k + 1]]
        if verdict.error is None:
            assert not luck[0]
            assert verdict.note
        else:
            assert verdict.error in ends
            if search is SearchStrategy.backward:
                assert verdict.error == ends[-1]
            if search is SearchStrategy.linear and luck[0]:
                assert verdict.error == ends[0]


def test_the_posterior_weighs_counts() -> None:
    """Before step 2 nothing is ever right, before step 3 one of sixteen: a right answer over a wrong step.

    Were the steps up to 3 right, some from before step 2 would have been.
    """
    lucky = [False] * 15 + [True]
    outcomes = {0: [True], 1: [True], 2: [False], 3: lucky, 4: [False]}
    verdict, _ = judged(outcomes, search=SearchStrategy.posterior, rollouts=16)
    assert verdict.error == 1
    assert verdict.note.startswith("probability 0.9")
    assert judged(outcomes, search=SearchStrategy.backward, rollouts=16, at_first=16)[0].error == 3


def test_the_posterior_spends_no_more_than_it_may() -> None:
    """Five steps, four prefixes to try: 4 x 3 roll-outs where nothing is ever sure."""
    verdict, sampler = judged(
        {k: [k <= 2] for k in range(5)}, search=SearchStrategy.posterior, rollouts=3, confidence=1.0
    )
    assert sum(params.n for _, params in sampler.asked) == verdict.counts["judge: roll-outs"] == 12
    assert verdict.error == 2
    assert 0 not in tried(sampler)


def test_a_problem_the_model_cannot_solve_has_no_verdict() -> None:
    verdict, _ = judged({k: [False] for k in range(5)}, rollouts=3)
    assert verdict == Verdict(
        None,
        "no roll-out from the beginning is right",
        {"judge: prefixes": 3, "judge: roll-outs": 9, "judge: nothing right": 1},
    )


def test_a_right_solution_has_no_wrong_step_and_costs_nothing() -> None:
    right = Solution("s0", FIVE.head, FIVE.steps, True)
    verdict, sampler = judged({}, right)
    assert (verdict.error, verdict.note, sampler.asked) == (None, "its answer is right", [])


def test_one_step_is_the_wrong_one_if_the_problem_can_be_solved() -> None:
    one = Solution("s0", FIVE.head, (FIVE.steps[0],), False)
    assert judged({0: [True]}, one)[0].error == 0
    assert judged({0: [False]}, one)[0].error is None


def test_draws_double_until_one_is_right() -> None:
    """1, 1, 2, 4, 2 of ten; one is enough."""
    _, sampler = judged({0: [True], 2: [False], 1: [False]}, rollouts=10, at_first=1)
    asked = [(params.n, prompts[0]) for prompts, params in sampler.asked]
    assert asked == [(n, at(k)) for k in (2, 1) for n in (1, 1, 2, 4, 2)] + [(1, at(0))]
    (verdict, _), total = judged({0: [True], 2: [False], 1: [False]}, rollouts=10, at_first=1), 10 + 10 + 1
    assert verdict.counts["judge: roll-outs"] == total


def test_every_round_draws_from_streams_of_its_own() -> None:
    """The third roll-out is the first right one: it is the first of the second round."""
    verdict, sampler = judged({2: [False, False, True, False], 3: [False]}, rollouts=4)
    assert verdict.error == 2
    assert [params.n for _, params in sampler.asked] == [2, 2, 2, 2]


def test_roll_outs_that_are_cut_are_no_success() -> None:
    asking = Asking(Rollouts(search=SearchStrategy.binary), FIVE)
    run(asking, Scripted({at(k): [GOOD] for k in range(5)}, finish="length"), [LONG])
    assert asking.verdicts[0].error is None


def test_the_temperature_is_that_of_the_solutions_unless_said() -> None:
    for given, used in ((None, context().sampling.temperature), (0.3, 0.3)):
        _, sampler = judged({0: [True]}, temperature=given)
        assert {params.temperature for _, params in sampler.asked} == {used}


@pytest.mark.parametrize("wrong", [{"rollouts": 0}, {"at_first": 0}, {"temperature": 0.0}, {"confidence": 0}])
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rollouts(**wrong)
