"""Right solutions that are spoilt from a random step on, with scripted continuations: each step is a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from support.scripted import ALL, LONG, OTHER, context, opened, preferences, run, spoil, whole

from stepdpo.core.steps import join_steps, label_of, split_steps
from stepdpo.core.types import Completion, Preference, Problem, Sampling
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.data.preference_file import require_pair
from stepdpo.pairs.controlled import Controlled
from stepdpo.pairs.engine.requests import Result

RIGHT = LONG.solution
HEAD, GOLD = split_steps(RIGHT)
LAST = len(GOLD) - 1
SHORT = next(p for p in ALL if p.meta["steps"] == 2)
ANSWER = f"The answer is: {LONG.answers[0]}"
LOST = " I give up. The answer is: 5555"
"""A wrong continuation of one step."""

Try = Callable[[str], str]
"""What is written after a prefix, to the end of the solution."""


def rest_of(text: str) -> Try:
    return lambda prefix: text[len(prefix) :] if text.startswith(prefix) else "?"


def spoilt(index: int) -> Try:
    """The gold steps, but for one that is wrong."""
    return rest_of(spoil(LONG, index))


def spoilt_at_once(prefix: str) -> str:
    """Wrong from the first continued step on."""
    return spoilt(len(split_steps(prefix)[1]) - 1)(prefix)


@dataclass
class Hot:
    """Whole samples, then step by step the tries: try i draws from stream i, and tries take turns."""

    samples: Sequence[str]
    tries: Sequence[Try] = (spoilt_at_once,)
    finish: str = "eos"
    asked: list[tuple[str, Sampling, int]] = field(default_factory=list)
    shared: dict[tuple[str, int], str] = field(default_factory=dict)
    """What each try of a problem began from."""

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        assert streams is not None
        both = list(zip(prompts, streams, strict=True))
        self.asked += [(prompt, params, stream) for prompt, stream in both]
        if not params.stop:
            texts = [self.samples[i % len(self.samples)] for i in range(params.n)]
            return [[Completion(f"\n{text}", 9, "eos") for text in texts] for _ in both]
        assert params.n == 1
        return [[self._step(prompt, stream, params.stop)] for prompt, stream in both]

    def _step(self, prompt: str, stream: int, stop: Sequence[str]) -> Completion:
        question, _, text = prompt.partition("\nA\n")
        begun = self.shared.setdefault((question, stream), text)
        whole = begun + self.tries[stream % len(self.tries)](begun)
        assert whole.startswith(text), "asked to go on from what was never written"
        step, found, _ = whole[len(text) :].partition(*stop)
        return Completion(step, 9, "stop" if found else self.finish)


def make(sampler: Hot, seed: int = 4, of: Problem = LONG, max_tokens: int = 999, **settings: Any) -> Result:
    given = context(2)
    given = replace(given, sampling=replace(given.sampling, seed=seed, max_tokens=max_tokens))
    (finished,) = run(Controlled(**settings), sampler, [of], given)
    return finished.result


def one(made: Result) -> Preference:
    (preference,) = made.preferences
    return preference


def tried(made: Result) -> dict[str, int]:
    """The counts of tries, without the word."""
    return {name.removeprefix("tries "): n for name, n in made.counts.items() if n and name.startswith("tries ")}


def test_both_sides_share_a_random_number_of_steps_and_no_more() -> None:
    """Over seeds, k takes each of 0 .. last - 1; what is shared is steps 0 .. k, and the label of the next."""
    seen = Counter()
    for seed in range(60):
        pair = one(make(Hot([RIGHT]), seed))
        k = pair.meta["k"]
        assert pair.prefix == join_steps(HEAD, GOLD[: k + 1]) + label_of(GOLD[k + 1])
        assert whole(pair) == (RIGHT, spoil(LONG, k + 1))
        assert (pair.meta["step"], pair.confidence, pair.whole) == (k + 1, 1.0, False)
        assert pair.chosen != pair.rejected
        seen[k] += 1
    assert set(seen) == set(range(LAST))
    assert min(seen.values()) > 60 / LAST / 3


def test_the_step_depends_on_seed_problem_and_sample_alone() -> None:
    asked = [p for p in ALL if p.meta["steps"] >= 4][:6]
    apart = [one(make(Hot([p.solution], (lambda _: LOST,)), of=p)).meta["k"] for p in asked]
    assert apart == [one(make(Hot([p.solution], (lambda _: LOST,)), of=p)).meta["k"] for p in asked]
    assert len(set(apart)) > 1


def test_what_is_the_same_after_step_k_is_shared_too() -> None:
    """Training refuses two equal steps: the sides are cut where they part, here at the last step."""
    seed = next(s for s in range(60) if one(make(Hot([RIGHT]), s)).meta["k"] == 0)
    pair = one(make(Hot([RIGHT], [spoilt(LAST)]), seed))
    assert (pair.meta["k"], pair.meta["step"]) == (0, LAST)
    assert pair.prefix == join_steps(HEAD, GOLD[:LAST]) + label_of(GOLD[LAST])
    assert whole(pair) == (RIGHT, spoil(LONG, LAST))
    require_pair(pair)


def test_temperatures_rise_by_step_up_to_the_highest() -> None:
    def ten_steps(prefix: str) -> str:
        begun = len(split_steps(prefix)[1])
        return " So?" + "".join(f"\nStep {begun + i}: So?" for i in range(1, 9)) + f"\nStep {begun + 9}:" + LOST

    rising = [1.10, 1.15, 1.20, 1.25, 1.30, 1.35, 1.40, 1.40, 1.40, 1.40]
    sampler = Hot([RIGHT], [ten_steps])
    pair = one(make(sampler))
    assert [params.temperature for _, params, _ in sampler.asked] == [0.8, *rising]
    assert pair.meta["temperatures"] == rising
    assert whole(pair)[1] == pair.prefix + ten_steps(pair.prefix)
    other = Hot([RIGHT], [ten_steps])
    make(other, temperature=1.0, increment=0.25, max_temperature=1.6)
    assert [params.temperature for _, params, _ in other.asked[1:5]] == [1.0, 1.25, 1.5, 1.6]


def test_each_step_is_a_request_from_where_the_last_one_ended() -> None:
    sampler = Hot([RIGHT])
    pair = one(make(sampler))
    k = pair.meta["k"]
    steps = split_steps(spoil(LONG, k + 1))[1]
    wanted = [opened(LONG)] + [
        f"{opened(LONG)}\n{join_steps(HEAD, steps[:i])}{label_of(steps[i])}" for i in range(k + 1, LAST + 1)
    ]
    assert [prompt for prompt, _, _ in sampler.asked] == wanted
    assert {(params.n, params.stop) for _, params, _ in sampler.asked[1:]} == {(1, ("\nStep ",))}


def test_labels_go_on_from_those_of_the_solution() -> None:
    """A solution that counts from 3; its continuation is written labels that go on from there."""
    odd = [step.replace(f"Step {i}:", f"Step {i + 2}:") for i, step in enumerate(GOLD, start=1)]
    sampler = Hot([join_steps(HEAD, odd)], [lambda prefix: f" So?\nStep {len(split_steps(prefix)[1]) + 3}:{LOST}"])
    pair = one(make(sampler))
    k = pair.meta["k"]
    assert pair.prefix.endswith(f"\nStep {k + 4}:")
    assert pair.rejected_rest.startswith(f"\nStep {k + 5}:")


def test_the_first_wrong_try_is_taken_and_every_try_has_a_stream_of_its_own() -> None:
    sampler = Hot([RIGHT], [rest_of(RIGHT), rest_of(RIGHT), lambda _: " Who knows?", spoilt_at_once, lambda _: LOST])
    made = make(sampler)
    pair = one(made)
    assert whole(pair)[1] == spoil(LONG, pair.meta["k"] + 1)
    assert (pair.meta["tries"], pair.meta["rejected_sample"]) == (4, "c3")
    assert sorted({stream for _, params, stream in sampler.asked if params.stop}) == [0, 1, 2, 3]
    assert tried(made) == {"that end right": 2, "without an answer": 1, "that end wrong": 1}
    assert made.counts["controlled pairs"] == 1


def test_tries_come_to_an_end() -> None:
    made = make(Hot([RIGHT], [rest_of(RIGHT), rest_of(RIGHT), spoilt_at_once]), tries=2)
    assert (made.preferences, made.outcome) == ((), "no wrong continuation")
    assert made.counts["right solutions that no try spoilt"] == 1


def long_winded(_: str) -> str:
    return " " + 40 * "so " + LOST


@pytest.mark.parametrize(
    ("text", "settings", "why"),
    [
        (lambda _: " So?" + "".join(f"\nStep {i}: So?" for i in range(9, 40)), {}, "with too many steps"),
        (long_winded, {"max_step_chars": 100}, "with a step too long"),
        (spoilt_at_once, {"max_tokens": 8}, "cut at max_tokens"),
        (lambda _: "", {}, "with an empty step"),
        (lambda _: " \nStep 9: ", {}, "with an empty step"),
        (lambda _: " Who knows?", {}, "without an answer"),
    ],
)
def test_garbled_tries_are_counted_and_followed_by_another(text: Try, settings: dict[str, int], why: str) -> None:
    def numbered(prefix: str) -> str:  # labels that go on from the prefix, as they are written for the model
        first, *others = text(prefix).split("\nStep ")
        begun = len(split_steps(prefix)[1])
        return first + "".join(f"\nStep {begun + i}:{t.partition(':')[2]}" for i, t in enumerate(others, start=1))

    made = make(Hot([RIGHT], [numbered, lambda _: LOST]), tries=2, **settings)
    if why == "cut at max_tokens":
        assert tried(made) == {why: 2}
    else:
        assert tried(made) == {why: 1, "that end wrong": 1}
        assert one(made).rejected == LOST


def test_the_longest_solution_and_step_that_are_not_garbled() -> None:
    """Limits are met, not passed: all of the steps, and as many characters as the longest step has."""
    longest = max(len(step.partition(":")[2].rstrip("\n")) for step in [*GOLD, *split_steps(spoil(LONG, 1))[1]])
    assert make(Hot([RIGHT]), max_steps=LAST + 1, max_step_chars=longest).outcome == "pairs"
    made = make(Hot([RIGHT]), max_steps=LAST)
    assert (made.outcome, made.counts["right solutions with too many steps"]) == ("no right sample is fit", 1)
    made = make(Hot([RIGHT]), max_step_chars=20)
    assert (made.outcome, made.counts["right solutions with a step too long"]) == ("no right sample is fit", 1)


def test_a_cut_step_ends_its_try() -> None:
    made = make(Hot([RIGHT], [lambda _: LOST], finish="length"), tries=3)
    assert tried(made) == {"cut at max_tokens": 3}


@pytest.mark.parametrize("word", ["an error", "Apologies"])
def test_right_solutions_that_repent_are_left_out(word: str) -> None:
    made = make(Hot([RIGHT.replace("Step 2:", f"Step 2: {word},")]))
    assert (made.outcome, made.counts["right solutions that speak of errors"]) == ("no right sample is fit", 1)
    both = make(Hot([RIGHT.replace("Step 2:", f"Step 2: {word},"), RIGHT]))
    assert one(both).meta["chosen_sample"] == "s1"


def test_a_right_solution_of_one_step_has_nothing_to_share() -> None:
    made = make(Hot([f"Step 1: {ANSWER}"]))
    assert (made.outcome, made.counts["right solutions of one step"]) == ("no right sample is fit", 1)


def test_of_two_steps_the_first_is_shared() -> None:
    for seed in range(9):
        pair = one(make(Hot([SHORT.solution], [lambda _: LOST]), seed, of=SHORT))
        assert (pair.meta["k"], pair.meta["step"], pair.rejected) == (0, 1, LOST)


def test_why_a_problem_gives_no_pair() -> None:
    assert make(Hot([spoil(LONG, 1)])).outcome == "no right sample"
    assert make(Hot(["I do not know."])).outcome == "no usable sample"


def test_a_right_answer_over_more_steps_is_no_wrong_side() -> None:
    """A try that wanders off and still ends right is not taken, whatever it looks like."""
    made = make(Hot([RIGHT], [lambda _: f" 1 = 2. {ANSWER}"]), tries=1)
    assert (made.preferences, tried(made)) == ((), {"that end right": 1})


def test_a_wrong_side_states_its_answer_as_the_right_one_does() -> None:
    """The grader would take the last number; where the right solution states none, nor need the wrong one."""
    made = make(Hot([RIGHT], [lambda _: " So 5555"]), tries=1)
    assert tried(made) == {"without an answer": 1}
    bare = RIGHT.removesuffix(f"\n{ANSWER}")
    made = make(Hot([bare], [lambda _: " So 5555"]), tries=1)
    assert one(made).rejected == " So 5555"


def test_one_that_merely_goes_on_after_the_other_s_end_is_no_wrong_side() -> None:
    """The right sample ends without a statement; the try writes the same, and then a further step."""
    bare = f"Step 1: 2 + 2 = 4\nStep 2: It is {LONG.answers[0]}"
    made = make(Hot([bare], [lambda _: f" It is {LONG.answers[0]}\nStep 3: No, it is 5555"]), tries=1)
    assert tried(made) == {"that part nowhere": 1}


def test_several_right_solutions_are_continued_each_with_streams_of_its_own() -> None:
    other = RIGHT.replace("\nStep 2: ", "\nStep 2: Now, ")
    sampler = Hot([RIGHT, other], [rest_of(RIGHT), rest_of(RIGHT), lambda _: LOST])
    made = make(sampler, max_right=2, tries=3)
    first, second = made.preferences
    assert (first.meta["chosen_sample"], second.meta["chosen_sample"]) == ("s0", "s1")
    assert (whole(first)[0], whole(second)[0]) == (RIGHT, other)
    begun = {stream for _, stream in sampler.shared}
    assert begun >= {0, 1, 2, 3}
    assert make(Hot([RIGHT, RIGHT]), max_right=2).counts["right solutions continued"] == 1


def test_naive_pairs_are_mixed_in() -> None:
    made = make(Hot([RIGHT, spoil(LONG, 0)]), naive=True)
    (*_, naive) = made.preferences
    assert (naive.prefix, naive.chosen, naive.rejected, naive.whole) == ("", RIGHT, spoil(LONG, 0), True)
    assert (made.counts["controlled pairs"], made.counts["naive pairs"]) == (1, 1)
    assert len(make(Hot([RIGHT, spoil(LONG, 0)])).preferences) == 1
    alone = make(Hot([RIGHT, spoil(LONG, 0)], [rest_of(RIGHT)]), naive=True)
    assert (alone.outcome, [p.whole for p in alone.preferences]) == ("pairs", [True])


def test_the_levels_at_which_it_is_trained() -> None:
    """The authors' mask: after the shared steps everything is scored, the end with it, before them nothing."""
    pair = one(make(Hot([RIGHT])))
    scored = Instance(prefix=Prefix.prompt)(pair)
    assert scored.context == pair.prefix
    assert (scored.context + scored.chosen, scored.context + scored.rejected) == whole(pair)
    assert (scored.chosen_ends, scored.rejected_ends) == (True, True)
    step = Step()(pair)
    assert (step.chosen, step.rejected) == (pair.chosen, pair.rejected)


def test_groups_of_problems_do_not_change_the_pairs() -> None:
    def made(live: int) -> list[Preference]:
        sampler = Hot([RIGHT, OTHER.solution], [lambda prefix: " So?" if len(prefix) % 2 else LOST, lambda _: LOST])
        found = run(Controlled(tries=3), sampler, [LONG, OTHER], context(2), live)
        return sorted(preferences(found), key=lambda pair: pair.question)

    assert len(made(1)) == 2
    assert made(1) == made(9)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"increment": -0.1}, "increment"),
        ({"max_temperature": 1.0}, "max_temperature must not be below temperature"),
        ({"tries": 0}, "tries"),
        ({"max_right": 0}, "max_right"),
        ({"max_steps": 1}, "max_steps"),
        ({"max_step_chars": 0}, "max_step_chars"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Controlled(**settings)
