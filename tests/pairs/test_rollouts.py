"""Roll-outs from every beginning of a wrong solution, with scripted texts: Q of each worked by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.scripted import LONG, Scripted, context, opened, run, spoil, whole

from stepdpo.core.steps import join_steps, label_of, split_steps
from stepdpo.core.types import Completion, Preference
from stepdpo.data.level import Instance
from stepdpo.pairs.engine.requests import Result
from stepdpo.pairs.rollouts import Rollouts, Rule
from stepdpo.pairs.tree.tree import Tree

HEAD, GOLD = split_steps(LONG.solution)
RIGHT, WRONG = LONG.solution, spoil(LONG, 1)
BAD = split_steps(WRONG)[1]
OTHERWISE = [GOLD[0], GOLD[1].replace("\n", " as well\n"), *GOLD[2:]]
"""Another wording of step 2."""
ANSWER = f"The answer is: {LONG.answers[0]}"
LOST = " I give up. The answer is: 5555"
"""The end of a roll-out that fails."""


def before(steps: list[str], count: int) -> str:
    """The text up to and with the label of step `count + 1`."""
    return join_steps(HEAD, steps[:count]) + label_of(steps[count])


def prompt(steps: list[str], count: int) -> str:
    return f"{opened(LONG)}\n{before(steps, count)}"


def rest(steps: list[str], count: int) -> str:
    return join_steps(HEAD, steps)[len(before(steps, count)) :]


def script(**changes: list[str]) -> Scripted:
    """Two samples, then four roll-outs a beginning: Q = 3/4, 2/4, 0, 1/4, ..., 0 along the wrong solution.

    Of the two ways of writing step 2 rightly, the gold one succeeds in 2 of 4, the other one in 3.
    """
    texts = {
        "samples": ["\n" + RIGHT, "\n" + WRONG],
        "q0": ["\n" + text for text in (RIGHT, RIGHT, RIGHT, WRONG)],
        "q1": [rest(GOLD, 1), rest(OTHERWISE, 1), LOST, LOST],
        "q2": [LOST] * 4,
        "q3": [rest(BAD, 3) + f"\nStep 9: Wait. {ANSWER}", LOST, LOST, LOST],
        "gold": [rest(GOLD, 2), rest(GOLD, 2), LOST, LOST],
        "otherwise": [rest(GOLD, 2), rest(GOLD, 2), rest(GOLD, 2), LOST],
        **changes,
    }
    written = {
        opened(LONG): [*texts["samples"], *texts["samples"], *texts["q0"]],  # four roll-outs begin at the fifth
        prompt(BAD, 1): texts["q1"],
        prompt(BAD, 2): texts["q2"],
        prompt(BAD, 3): texts["q3"],
        prompt(GOLD, 2): texts["gold"],
        prompt(OTHERWISE, 2): texts["otherwise"],
    }
    for count in range(4, len(BAD)):
        written[prompt(BAD, count)] = [LOST]
    return Scripted(written)


def make(sampler: Scripted | None = None, **settings: Any) -> Result:
    (finished,) = run(Rollouts(**{"rollouts": 4, **settings}), sampler or script(), [LONG], context(2))
    return finished.result


def one(made: Result) -> Preference:
    (preference,) = made.preferences
    return preference


def test_the_pit_meets_the_best_step_after_the_same_prefix() -> None:
    made = make()
    pair = one(made)
    assert pair.prefix == before(BAD, 1)
    assert (pair.chosen, pair.rejected) == (rest(OTHERWISE, 1).partition("\n")[0], rest(BAD, 1).partition("\n")[0])
    assert pair.chosen.endswith(" as well")
    assert whole(pair) == (join_steps(HEAD, OTHERWISE), WRONG)
    assert (pair.chosen_value, pair.rejected_value) == (2 * 3 / 4 - 1, -1)
    assert pair.meta == {"problem": LONG.id, "step": 1, "rejected_sample": "s1", "advantage": -0.5}
    assert made.outcome == "pairs"


def test_what_is_asked_and_counted() -> None:
    """One call for all beginnings, one for both candidates; right roll-outs: 3 + 2 + 0 + 1, then 2 + 3."""
    sampler, beginnings = script(), len(BAD)
    made = make(sampler)
    assert [len(prompts) for prompts, _ in sampler.asked] == [1, beginnings, 2]
    assert {(params.n, params.temperature) for _, params in sampler.asked[1:]} == {(4, 0.7)}
    assert sampler.asked[0][1].temperature == 0.8
    assert +made.counts == {
        "samples": 2, "right": 1, "wrong solutions measured": 1, "pits": 1, "beginnings": beginnings + 2,
        "roll-outs": 4 * (beginnings + 2), "right roll-outs": 3 + 2 + 1 + 2 + 3,
    }  # fmt: skip


def test_everything_measured_is_in_the_tree() -> None:
    made = make()
    assert made.tree is not None
    tree = Tree.from_row(made.tree)
    at, seen = 0, [(4, 3, 0.5)]
    for step in BAD:
        at = next(
            i for i in tree.children[at] if tree.nodes[i].text.strip("\n") == (HEAD * (at == 0) + step).strip("\n")
        )
        seen.append((tree.nodes[at].visits, tree.nodes[at].successes, tree.nodes[at].q))
    assert (tree.nodes[0].visits, tree.nodes[0].successes, tree.nodes[0].q) == seen[0]
    assert seen[1:4] == [(4, 2, 0.0), (4, 0, -1.0), (4, 1, -0.5)]
    assert seen[-1] == (4, 0, -1.0)
    assert tree.text(at) == WRONG
    texts = {tree.text(i): tree.nodes[i].correct for i in tree.endings(0)}
    assert texts[RIGHT] is texts[join_steps(HEAD, OTHERWISE)] is True
    assert texts[WRONG] is texts[before(BAD, 2) + LOST] is False
    assert tree.meta == {"visits": "rollouts"}
    last = next(i for i in tree.endings(0) if tree.text(i) == before(BAD, 2) + LOST)
    assert tree.nodes[last].successes == 0, "a last step is as right as its answer"
    right = next(i for i in tree.endings(0) if tree.text(i) == RIGHT)
    assert (tree.nodes[right].visits, tree.nodes[right].successes) == (3 + 1 + 2 + 1, None)  # roll-outs, and a sample


def test_equal_beginnings_are_asked_for_once() -> None:
    """A second wrong solution that goes wrong a step later, after a gold step: it shares two beginnings."""
    later = spoil(LONG, 2)
    sampler = script(samples=["\n" + WRONG, "\n" + later])
    make(sampler)
    prompts = sampler.asked[1][0]
    assert len(prompts) == len(set(prompts)) == 2 * len(BAD) - 2
    assert prompts.count(prompt(BAD, 1)) == prompts.count(opened(LONG)) == 1


def test_a_step_measured_for_another_solution_is_not_measured_again() -> None:
    """The second wrong solution has the gold second step, which is thus measured from the start."""
    sampler = script(samples=["\n" + WRONG, "\n" + spoil(LONG, 2)])
    make(sampler)
    assert prompt(GOLD, 2) in sampler.asked[1][0]
    assert prompt(GOLD, 2) not in sampler.asked[2][0]


def test_a_fall_too_small_and_a_gap_too_small() -> None:
    """Q falls by 2/4 at the pit; the better step is ahead by 3/4."""
    assert make(min_drop=0.5).outcome == "pairs"
    made = make(min_drop=0.51)
    assert (made.outcome, made.counts["pits"]) == ("no pit", 0)
    assert (
        make(script(gold=[LOST], otherwise=[rest(GOLD, 2), LOST, LOST, LOST]), min_drop=0.3).outcome
        == "no better step found"
    )


def test_best_of_k_changes_where_q_is_low() -> None:
    """With K = 4 of 4, one right roll-out makes Q = 1: it falls by 1 at the pit."""
    assert one(make(best_of=4, min_drop=1.0)).meta["advantage"] == -1


def test_a_problem_never_solved_is_skipped() -> None:
    made = make(script(q0=["\n" + WRONG] * 4))
    assert (made.preferences, made.outcome) == ((), "never solved from the start")
    assert made.tree is not None


@pytest.mark.parametrize(("texts", "outcome"), [([RIGHT], "no wrong sample"), (["I do not know."], "no usable sample")])
def test_without_a_wrong_sample(texts: list[str], outcome: str) -> None:
    made = make(script(samples=["\n" + text for text in texts] * 2))
    assert (made.preferences, made.outcome, made.tree) == ((), outcome, None)


def test_the_papers_pair() -> None:
    """A right solution against the wrong one up to its pit, which has no end: no end-of-text after it."""
    sampler = script()
    pair = one(make(sampler, rule=Rule.PAPER))
    assert (pair.prefix, pair.chosen, pair.chosen_rest) == ("", RIGHT, "")
    assert pair.rejected == join_steps(HEAD, BAD[:2]).rstrip("\n")
    assert (pair.rejected_rest, pair.chosen_value, pair.rejected_value) == ("", 1.0, -1.0)
    scored = Instance()(pair)
    assert (scored.chosen_ends, scored.rejected_ends) == (True, False)
    assert len(sampler.asked) == 2


def test_the_pair_of_self_explore() -> None:
    """The shortest successful roll-out from before the pit, to its end, against the pit alone."""
    pair = one(make(rule=Rule.SELF_EXPLORE))
    assert (pair.prefix, pair.chosen, pair.chosen_rest) == (before(BAD, 1), rest(GOLD, 1), "")
    assert (pair.rejected, pair.rejected_rest) == (rest(BAD, 1).partition("\n")[0], "")


def test_self_explore_at_the_first_step() -> None:
    made = make(script(q1=[LOST]), rule=Rule.SELF_EXPLORE)
    pair = one(made)
    assert (pair.prefix, pair.chosen, pair.rejected) == ("", RIGHT, HEAD + BAD[0].rstrip("\n"))


def test_self_explore_cuts_the_answer_off_the_pit() -> None:
    """A last step that is wrong states an answer; what is rejected is the working."""
    index = len(GOLD) - 1
    last = spoil(LONG, index)
    steps = split_steps(last)[1]
    texts = {prompt(steps, count): [rest(GOLD, count)] for count in range(1, len(steps))}
    texts[opened(LONG)] = ["\n" + RIGHT, "\n" + last, "\n" + RIGHT]
    made = make(Scripted(texts), rule=Rule.SELF_EXPLORE)
    pair = one(made)
    assert pair.meta["step"] == index
    assert "answer is" not in pair.rejected
    assert pair.rejected.strip() in last
    assert "answer is" in pair.chosen


def test_a_candidate_that_ends_its_solution_needs_no_roll_outs() -> None:
    index = len(GOLD) - 1
    last = spoil(LONG, index)
    steps = split_steps(last)[1]
    texts = {prompt(steps, count): [rest(GOLD, count)] for count in range(1, len(steps))}
    texts[opened(LONG)] = ["\n" + RIGHT, "\n" + last, "\n" + RIGHT]
    sampler = Scripted(texts)
    pair = one(make(sampler))
    assert len(sampler.asked) == 2
    assert whole(pair) == (RIGHT, last)
    assert (pair.chosen_value, pair.rejected_value) == (1, -1)


@dataclass
class Cut:
    """Writes the samples to their ends, and cuts the roll-outs."""

    script: Scripted

    def sample(self, *asked: Any) -> list[list[Completion]]:
        found = self.script.sample(*asked)
        cut = len(self.script.asked) > 1
        return [[replace(c, finish="length") if cut else c for c in some] for some in found]


def test_cut_roll_outs_are_failures() -> None:
    (finished,) = run(Rollouts(rollouts=4), Cut(script()), [LONG], context(2))
    assert finished.result.outcome == "never solved from the start"
    assert finished.result.counts["roll-outs cut at max_tokens"] == 4 * len(BAD)


@pytest.mark.parametrize(
    "settings",
    [{"best_of": 9}, {"best_of": 0}, {"max_wrong": 0}, {"candidates": 0}, {"min_drop": 0}, {"temperature": 0}],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Rollouts(**settings)


def test_steps_carry_the_shares_of_right_roll_outs() -> None:
    found = one(make())
    # 2/4 after step 1; the better wording of step 2 has 3/4, the wrong one 0. Of the rest of a roll-out that ends right
    # only its end is known.
    values = [mark.value for mark in found.chosen_steps]
    assert values[:2] == [0.5, 0.75]
    assert values[2:] == [*[None] * (len(values) - 3), 1.0]
    assert [mark.value for mark in found.rejected_steps[:3]] == [0.5, 0.0, 0.25]


@pytest.mark.parametrize("rule", [Rule.PAPER, Rule.SELF_EXPLORE])
def test_unfinished_sides_are_marked_as_far_as_they_go(rule: Rule) -> None:
    found = one(make(rule=rule))
    chosen, rejected = whole(found)
    assert found.chosen_steps[-1].value == 1.0
    assert found.chosen_steps[-1].end == len(chosen)
    assert [mark.value for mark in found.rejected_steps] == [0.5, 0.0]
    assert found.rejected_steps[-1].end == len(rejected)
