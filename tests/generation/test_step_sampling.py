"""Where sampled steps stop, and which of them are one."""

from __future__ import annotations

import pytest

from stepdpo.core.types import Completion
from stepdpo.generation.step_sampling import (
    Delimiter,
    SampledStep,
    StepEquality,
    distinct,
    opening,
    parse_step,
    skeleton,
    split_solution,
    stop_strings,
)

SOLUTION = "Let's think.\nStep 1: 2 + 3 = 5. So 5.\n\nStep 2: 5 * 4 = 20.\nThe answer is: 20"


@pytest.mark.parametrize("delimiter", Delimiter)
def test_a_solution_written_step_by_step_is_the_solution(delimiter: Delimiter) -> None:
    """A model that knows the solution, asked again and again: what it writes ends at the first stop string."""
    text, found = "", []
    while text != SOLUTION:
        depth = len(found)
        prompt = text + opening(delimiter, depth)
        rest = SOLUTION[len(prompt) :]
        assert SOLUTION.startswith(prompt)
        ends = [(rest.find(stop), -len(stop), stop) for stop in stop_strings(delimiter, depth) if stop in rest]
        at, _, stop = min(ends, default=(-1, 0, ""))
        written = Completion(rest[:at], 3, "stop", stop=stop) if stop else Completion(rest, 3, "eos")
        step = parse_step(delimiter, depth, written)
        assert isinstance(step, SampledStep)
        assert step.ends == (not stop)
        found.append(step.text)
        text += found[-1]
    assert found == split_solution(delimiter, SOLUTION)
    assert len(found) == {"step": 2, "newline": 4, "paragraph": 2, "sentence": 5}[delimiter.value]


def test_steps_that_are_none() -> None:
    for text, finish, why in (
        ("\n5", "length", "steps cut at step_tokens"),
        ("5", "stop", "not in the template's form"),
        ("\n ", "eos", "empty steps"),
    ):
        assert parse_step(Delimiter.step, 0, Completion(text, 1, finish), "\n") == why


def test_a_sampler_that_does_not_name_the_stop_string() -> None:
    """Then a line ends with one line break, a sentence with a full stop."""
    for delimiter, text in ((Delimiter.newline, "x = 3\n"), (Delimiter.sentence, "x = 3."), (Delimiter.step, "x = 3")):
        step = parse_step(delimiter, 0, Completion("x = 3", 4, "stop"))
        assert isinstance(step, SampledStep)
        assert step.text == text


def test_a_stated_answer_ends() -> None:
    step = parse_step(Delimiter.step, 1, Completion(" The answer is: 5", 4, "stop", -2.5))
    assert step == SampledStep("\nStep 2: The answer is: 5", True, 4, -2.5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Step 1: Rosa has 18 + 36 = 54 lemons", "Let's think.\nStep 1: There are 18 + 36 = 54 cups", True),
        ("18 + 36 = 54", "36 + 18 = 54", False),
        ("So x > 3.", "Hence x > 3", True),
        ("So x > 3.", "So x < 3.", False),
        ("So x > 3.", "So y > 3.", False),
        (r"We get $\frac{1}{2}$.", r"We get $\sqrt{1}{2}$.", False),
        ("1,000 cups", "1,000 mugs", True),
        ("We are done.", "That is  all.", False),
        ("We are done.", "We are  done.", True),
    ],
)
def test_steps_of_one_skeleton(one: str, other: str, same: bool) -> None:
    assert (skeleton(one) == skeleton(other)) is same
    assert (distinct([one, other], StepEquality.formulas) == [0]) is same


def test_equal_texts() -> None:
    assert distinct(["a  b", "a b", "a c", "a\nb"], StepEquality.text) == [0, 2]
