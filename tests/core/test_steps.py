"""Splitting solutions into steps loses nothing and is not fooled by mentions of steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.core.steps import cut_step, final_answer_stated, join_steps, label_of, prefix_before, split_steps, text_of

SOLUTION = "Let's think step by step.\nStep 1: a.\nStep 2: b.\nThe answer is: 42"
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["\n", "Step 1:", "Step 2:", "\nStep 3:", " ", "step by step.", "Step x", "The answer is: 4"]),
        st.text(max_size=5),
    )
).map("".join)


@given(TEXTS)
def test_joined_again_it_is_the_same_text(text: str) -> None:
    assert join_steps(*split_steps(text)) == text


@given(TEXTS)
def test_every_step_begins_with_its_label_and_every_prefix_ends_with_it(text: str) -> None:
    head, steps = split_steps(text)
    for index, step in enumerate(steps):
        prefix = prefix_before(head, steps, index)
        assert label_of(step)
        assert prefix.endswith(label_of(step))
        assert text.startswith(prefix + text_of(step))


@given(TEXTS)
def test_a_cut_continuation_is_whole(text: str) -> None:
    step, rest = cut_step(text)
    assert step + rest == text
    assert rest == "" or rest.startswith("\nStep ")


def test_the_answer_hangs_on_the_last_step() -> None:
    head, steps = split_steps(SOLUTION)
    assert head == "Let's think step by step.\n"
    assert steps == ["Step 1: a.\n", "Step 2: b.\nThe answer is: 42"]
    assert [text_of(step) for step in steps] == [" a.", " b.\nThe answer is: 42"]
    assert prefix_before(head, steps, 1) == "Let's think step by step.\nStep 1: a.\nStep 2:"


@pytest.mark.parametrize(
    "head", ["Let's think step by step. ", "Let's think step by step.", "A.\nthink step by step: "]
)
def test_first_step_on_the_opening_line(head: str) -> None:
    assert split_steps(f"{head}Step 1: a.\nStep 2: b") == (head, ["Step 1: a.\n", "Step 2: b"])


def test_a_published_blank_before_the_line_break_is_kept() -> None:
    assert split_steps("Let's think step by step. \nStep 1: a") == ("Let's think step by step. \n", ["Step 1: a"])


def test_mentions_are_not_steps() -> None:
    text = "By Step 1: we know.\nStep 1: as Step 2: will show.\nStep by step.\n Step 3: no"
    assert split_steps(text) == ("By Step 1: we know.\n", ["Step 1: as Step 2: will show.\nStep by step.\n Step 3: no"])


@pytest.mark.parametrize("text", ["", "No steps.", "\n", "Step one: a"])
def test_text_without_steps_is_all_head(text: str) -> None:
    assert split_steps(text) == (text, [])


def test_a_continuation_is_cut_before_the_next_label() -> None:
    assert cut_step(" a.\nStep 2: b.\nStep 3: c") == (" a.", "\nStep 2: b.\nStep 3: c")
    assert cut_step(" b.\nThe answer is: 42") == (" b.\nThe answer is: 42", "")
    assert cut_step("\nStep 2: b") == ("", "\nStep 2: b")


@pytest.mark.parametrize("text", ["The answer is: 4", "so THE ANSWER IS 4", r"\boxed{4}", r"\boxed {4}", "#### 4"])
def test_a_final_answer_is_seen(text: str) -> None:
    assert final_answer_stated(text)


@pytest.mark.parametrize("text", ["", "The answer was 4", "boxed 4", "### 4"])
def test_no_final_answer_is_seen(text: str) -> None:
    assert not final_answer_stated(text)
