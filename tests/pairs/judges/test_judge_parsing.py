"""Decisions of a judge, as models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.pairs.judges.parsing import CORRECT, INCORRECT, NEUTRAL, Unreadable, read_decision


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("Final decision: Step 1: correct; Step 2: neutral; Step 3: incorrect", 2),
        ("Step 1 is right.\n\nFinal Decision:\nStep 1: correct; Step 2: incorrect", 1),
        ("FINAL DECISION: step 1: Incorrect", 0),
        ("**Final Decision:**\n- **Step 1**: correct\n- **Step 2:** correct\n- Step 3: `incorrect`.", 2),
        ("Final decision: Step 1: correct; Step 2: correct; Step 3: correct; Step 4: neutral", None),
        ("Final decision: Step 1: incorrect; Step 2: incorrect; Step 4: correct", 0),  # after the first it is ignored
        (
            "My final decision: Step 1: incorrect.\nOn reflection.\nFinal decision: Step 1: correct; Step 2: incorrect",
            1,
        ),
        ("Final decision: Step 1: correct; Step 1: correct; Step 2: incorrect", 1),
        ("<think>final decision: Step 1: incorrect</think>Final  decision: Step 1 - correct, Step 2 = incorrect", 1),
        ("Step 3: incorrect. Final decision: Step 1: correct; Step 2: incorrect", 1),
    ],
)
def test_what_is_read(answer: str, error: int | None) -> None:
    assert read_decision(answer, 4).error == error


def test_neutral_is_an_option() -> None:
    answer = "Final decision: Step 1: correct; Step 2: neutral; Step 3: incorrect"
    assert read_decision(answer, 3).error == 2
    assert read_decision(answer, 3, neutral_is_error=True).error == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no decision"),
        ("Step 1: incorrect", "no decision"),
        ("Final decision: I cannot tell.", "no decision"),
        ("Final decision: Step 1: wrong", "no decision"),
        ("Final decision: Step 1: correct; Step 2: correct", "a step without a label"),
        ("Final decision: Step 2: incorrect", "a step without a label"),
        ("Final decision: Step 1: partially correct; Step 2: incorrect", "a step without a label"),
        ("Final decision: Step 1: correct; Step 9: incorrect", "a step that is not there"),
        ("Final decision: Step 0: incorrect", "a step that is not there"),
        ("Final decision: Step 1: correct; Step 2: incorrect; Step 2: correct", "two labels for one step"),
        ("Final decision: Step 1: incorrectly", "no decision"),
    ],
)
def test_what_is_not(answer: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_decision(answer, 4)


@given(st.lists(st.sampled_from([CORRECT, NEUTRAL, INCORRECT]), min_size=1, max_size=9), st.booleans())
def test_a_whole_line_says_the_first_wrong_step(labels: list[str], neutral: bool) -> None:
    line = "; ".join(f"Step {i}: {label}" for i, label in enumerate(labels, start=1))
    wrong = [i for i, label in enumerate(labels) if label == INCORRECT or (neutral and label == NEUTRAL)]
    assert read_decision(f"Final decision: {line}", len(labels), neutral).error == (wrong[0] if wrong else None)


@given(st.text(), st.integers(1, 5))
def test_any_text_is_read_or_refused(text: str, steps: int) -> None:
    try:
        found = read_decision(f"Final decision: {text}", steps).error
    except Unreadable:
        return
    assert found is None or 0 <= found < steps
