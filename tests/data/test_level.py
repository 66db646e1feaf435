"""What is scored and what is only read: the whole matrix of levels, prefixes and endings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepdpo.core.types import Pair, Preference, Turn
from stepdpo.data.level import AppendEos, Instance, Prefix, Step

PREFERENCE = Preference(
    question="Q",
    prefix="So.\nStep 2:",
    chosen=" a",
    chosen_rest="\nThe answer is: 1",
    rejected=" b",
    rejected_rest="\nStep 3: and so",
    answer="1",
    confidence=0.75,
    history=(Turn("assistant", "A"), Turn("user", "B")),
)
CHOSEN = " a\nThe answer is: 1"
REJECTED = " b\nStep 3: and so"
"""The rejected continuation was cut before it gave an answer."""


@pytest.mark.parametrize(
    ("prefix", "context", "before"), [(Prefix.prompt, "So.\nStep 2:", ""), (Prefix.response, "", "So.\nStep 2:")]
)
@pytest.mark.parametrize(("eos", "ends"), [(AppendEos.auto, False), (AppendEos.off, False), (AppendEos.on, True)])
def test_step(prefix: Prefix, context: str, before: str, eos: AppendEos, ends: bool) -> None:
    """One step a side, ended only on demand."""
    found = Step(prefix=prefix, append_eos=eos)(PREFERENCE)
    assert replace(found, rest="", rest_ends=False) == Pair(
        question="Q",
        context=context,
        chosen=before + " a",
        rejected=before + " b",
        chosen_ends=ends,
        rejected_ends=ends,
        confidence=0.75,
        history=PREFERENCE.history,
    )


@pytest.mark.parametrize(
    ("prefix", "context", "before"), [(Prefix.prompt, "So.\nStep 2:", ""), (Prefix.response, "", "So.\nStep 2:")]
)
@pytest.mark.parametrize(
    ("eos", "ends"),
    [(AppendEos.auto, (True, False)), (AppendEos.off, (False, False)), (AppendEos.on, (True, True))],
)
def test_instance(prefix: Prefix, context: str, before: str, eos: AppendEos, ends: tuple[bool, bool]) -> None:
    """Whole continuations; `auto` ends those that reached an answer, each side by itself."""
    found = Instance(prefix=prefix, append_eos=eos)(PREFERENCE)
    assert replace(found, rest_ends=False) == Pair(
        question="Q",
        context=context,
        chosen=before + CHOSEN,
        rejected=before + REJECTED,
        chosen_ends=ends[0],
        rejected_ends=ends[1],
        confidence=0.75,
        history=PREFERENCE.history,
    )


def test_defaults_are_step_dpo_and_ordinary_dpo() -> None:
    assert (Step().prefix, Step().append_eos) == (Prefix.prompt, AppendEos.auto)
    assert (Instance().prefix, Instance().append_eos) == (Prefix.response, AppendEos.auto)


@pytest.mark.parametrize("level", [Step(prefix=Prefix.response), Instance()])
def test_supervised_data_stays_without_a_rejected_side(level: Step | Instance) -> None:
    """No prefix is invented for a side that is not there."""
    pair = level(replace(PREFERENCE, rejected="", rejected_rest=""))
    assert pair.rejected == ""
    assert pair.chosen.startswith("So.\nStep 2: a")


@pytest.mark.parametrize("level", [Step, Instance])
@pytest.mark.parametrize(("eos", "ends"), [(AppendEos.auto, True), (AppendEos.off, False), (AppendEos.on, True)])
def test_whole_responses_end(level: type[Step] | type[Instance], eos: AppendEos, ends: bool) -> None:
    """Responses of a chat have no steps and name no final answer; they end all the same, unless told otherwise."""
    pair = level(append_eos=eos)(Preference("Q", "", "Good.", "Bad.", whole=True))
    assert (pair.chosen_ends, pair.rejected_ends) == (ends, ends)
