"""Reading, mapping and validating preference data."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.raw_rows import GOOD, PAIR, STEP, load

from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference, Problem, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.formats import Format
from stepdpo.data.preference_file import from_row, to_line
from stepdpo.data.rows import bad_row
from stepdpo.data.validation import amount, enforce, share
from stepdpo.tinymath.solutions import TinymathSolutions

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("STEPDPO_SHARED", ROOT.parent / "shared")) / "data"


# Formats


def test_step_dpo_columns_become_a_preference(tmp_path: Path) -> None:
    loaded = load(tmp_path, STEP)
    assert loaded.bad == ()
    assert loaded.preferences == (
        Preference(
            question="What is 2 + 3?",
            prefix="Let's think step by step. \nStep 1:",
            chosen=" 2 + 3 = 5.",
            rejected=" 2 + 3 = 6.",
            chosen_rest="\nStep 2: Done.",
            rejected_rest="\nStep 2: Done.",
            answer="5",
        ),
    )


@pytest.mark.parametrize(
    ("change", "chosen", "rest"),
    [
        ({"full_chosen": "2 + 3 = 5.\nStep 2: Done."}, " 2 + 3 = 5.", "\nStep 2: Done."),
        ({"full_chosen": STEP["initial_reason_steps"] + STEP["full_chosen"]}, " 2 + 3 = 5.", "\nStep 2: Done."),
        (
            {"full_chosen": "Let's think step by step.\nStep 1: 2 + 3 = 5.\nStep 2: Done."},
            " 2 + 3 = 5.",
            "\nStep 2: Done.",
        ),
        ({"full_chosen": "Something else."}, " 2 + 3 = 5.", ""),
        ({"full_chosen": "2 + 3 = 5.5"}, " 2 + 3 = 5.", ""),
        ({"full_chosen": "Let's think step by step.\nFirst, guess."}, " 2 + 3 = 5.", ""),
        ({"full_chosen": None}, " 2 + 3 = 5.", ""),
        ({"chosen": None}, " 2 + 3 = 5.\nStep 2: Done.", ""),
    ],
)
def test_step_dpo_rest_is_the_continuation_less_the_step(
    tmp_path: Path, change: dict[str, Any], chosen: str, rest: str
) -> None:
    (preference,) = load(tmp_path, STEP | change, format=Format.STEP_DPO).preferences
    assert (preference.chosen, preference.chosen_rest) == (chosen, rest)
    assert preference.prefix == STEP["initial_reason_steps"]


def test_step_dpo_continuation_that_is_elsewhere_is_counted(tmp_path: Path) -> None:
    counts = load(tmp_path, STEP | {"full_chosen": "Something else."}).counts
    assert counts["full_chosen does not continue the step (its rest is left out)"] == 1


def test_step_dpo_with_full_columns_only(tmp_path: Path) -> None:
    row = {k: STEP[k] for k in ("prompt", "full_chosen", "full_rejected", "answer")}
    (preference,) = load(tmp_path, row).preferences
    assert (preference.prefix, preference.chosen, preference.chosen_rest) == ("", STEP["full_chosen"], "")


def test_ultrainteract_turns_become_history(tmp_path: Path) -> None:
    turns = [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}, {"from": "user", "value": "Wrong."}]
    row = {"id": "abc_5_1", "task": "Math_CoT", "trajectory": turns, "chosen": "B", "rejected": "C"}
    (preference,) = load(tmp_path, row).preferences
    assert preference.question == "Q"
    assert preference.history == (Turn("assistant", "A"), Turn("user", "Wrong."))
    assert preference.meta == {"id": "abc_5_1", "task": "Math_CoT", "turn": 1, "length": 3}


def test_trl_strings_and_messages(tmp_path: Path) -> None:
    messages = {
        "prompt": [{"role": "user", "content": "What is 2 + 3?"}],
        "chosen": [{"role": "assistant", "content": "5"}],
        "rejected": [{"role": "assistant", "content": "6"}],
    }
    first, second = load(tmp_path, PAIR, messages).preferences
    assert first == second == Preference(question="What is 2 + 3?", prefix="", chosen="5", rejected="6", whole=True)


def turns(*texts: str) -> list[dict[str, str]]:
    """user, assistant, user, ...; a text that begins with `!` is the system's, in front."""
    said = [{"role": "system", "content": text[1:]} for text in texts if text.startswith("!")]
    others = [text for text in texts if not text.startswith("!")]
    return said + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(others)]


def tuples(preference: Preference) -> tuple[str, str, str, str]:
    history = "|".join(f"{turn.role}:{turn.content}" for turn in preference.history)
    return preference.question, history, preference.chosen, preference.rejected


SAID = [{"role": "assistant", "content": "5"}]
UNSAID = [{"role": "assistant", "content": "6"}]
GPT = {"from": "gpt", "value": "5"}
CONVERSATIONS = {
    "a system turn in the prompt": (
        {"prompt": turns("!Be brief.", "Q"), "chosen": SAID, "rejected": UNSAID}, ("Q", "system:Be brief.", "5", "6")),
    "no prompt": (
        {"chosen": turns("!Be brief.", "Q", "5"), "rejected": turns("!Be brief.", "Q", "6")},
        ("Q", "system:Be brief.", "5", "6")),
    "no prompt, several turns": (
        {"chosen": turns("Q", "A", "Again.", "5"), "rejected": turns("Q", "A", "Again.", "6")},
        ("Q", "assistant:A|user:Again.", "5", "6")),
    "the prompt once more in the sides": (
        {"prompt": "Q", "chosen": turns("Q", "5"), "rejected": turns("Q", "6"), "messages": turns("Q", "5")},
        ("Q", "", "5", "6")),
    "messages": ({"messages": turns("!Be brief.", "Q", "5")}, ("Q", "system:Be brief.", "5", "")),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Q"}, GPT], "system": "Be brief."},
        ("Q", "system:Be brief.", "5", "")),
    "ShareGPT with two sides": (
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": GPT, "rejected": {**GPT, "value": "6"}},
        ("Q", "", "5", "6")),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_as_others_write_them(name: str, tmp_path: Path) -> None:
    row, expected = CONVERSATIONS[name]
    (preference,) = load(tmp_path, row).preferences
    assert tuples(preference) == expected
    assert preference.whole
    assert from_row(json.loads(to_line(preference))) == preference


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": turns("Q", "5"), "rejected": turns("P", "6")}, "differ before their last turns"),
        ({"chosen": turns("Q"), "rejected": turns("Q")}, "of which the last is the assistant's"),
        ({"prompt": "P", "chosen": turns("Q", "5"), "rejected": turns("Q", "6")}, "'prompt' is no turn of 'chosen'"),
        ({"prompt": turns("P"), "chosen": turns("Q", "5"), "rejected": turns("Q", "6")}, "are not those of 'prompt'"),
        ({"prompt": [*turns("Q", "A"), *turns("!S")], "chosen": "5", "rejected": "6"}, "system turn that is not the"),
        ({"prompt": turns("!S"), "chosen": "5", "rejected": "6"}, "must begin and end with a turn of the user"),
        ({"messages": turns("Q")}, "the last turn must be the assistant's"),
    ],
)
def test_conversations_that_are_none(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (bad,) = load(tmp_path, row).bad
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "p", "question": "Q", "answer": "5", "nodes": [{"parent": -1}]}, "trees.*dataset=trees"),
        ({"prompt": "Q", "completion": "5"}, r"set format=solutions and columns=\{question: prompt, solution: compl"),
        ({"chosen": "Q 5", "rejected": "Q 6"}, "nobody can tell where it ends"),
        ({"promt": "Q", "chosen": "5", "rejected": "6"}, "(?s)no known format.*column 'promt': did you mean 'prompt'"),
        # Such rows have all columns of another format.
        ({"question": "Q", "chosen": "5", "rejcted": "6", "answer": "5"}, "'rejcted': did you mean 'rejected'.*Rename"),
        ({"question": "Q", "choosen": "5", "rejected": "6", "solution": "5"}, "'choosen': did you mean 'chosen'"),
    ],
)
def test_rows_of_other_kinds_are_refused_by_name(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, row)


def test_a_misspelt_side_is_refused_whatever_the_format(tmp_path: Path) -> None:
    """Optional there, it would be taken for a row without one."""
    row = {"question": "Q", "chosen": "5", "rejcted": "6"}
    with pytest.raises(UserError, match="'rejcted': did you mean 'rejected'"):
        load(tmp_path, row, format=Format.PREFERENCES)
    assert load(tmp_path, row, columns={"rejected": "rejcted"}).preferences[0].rejected == "6"


def test_of_two_columns_of_a_kind_the_one_passed_over_is_said(tmp_path: Path) -> None:
    row = {"question": "Q", "problem": "P", "solution": "5", "output": "6", "answer": "5"}
    counts = load(tmp_path, row, {**row, "problem": None}).counts
    assert counts["column 'problem' is ignored beside 'question'"] == 1
    assert counts["column 'output' is ignored beside 'solution'"] == 2


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "answer": "2 + 3 = 5\n#### 5"},
        {"problem": "Q", "solution": "2 + 3 = 5\n#### 5", "answer": "5"},
        {"instruction": "Q", "output": "2 + 3 = 5\n#### 5", "answer": ["5"]},
    ],
)
def test_solutions_have_a_chosen_side_only(tmp_path: Path, row: dict[str, Any]) -> None:
    (preference,) = load(tmp_path, row).preferences
    assert preference == Preference(
        question="Q", prefix="", chosen="2 + 3 = 5\n#### 5", rejected="", answer="5", whole=True
    )


def test_alpaca_rows_ask_what_their_input_says(tmp_path: Path) -> None:
    """Both parts of the question, a line each; an empty input adds nothing."""
    row = {"instruction": "Solve it.", "input": "What is 2 + 3?", "output": "2 + 3 = 5\n#### 5"}
    with_input, without, null = load(tmp_path, row, {**row, "input": " "}, {**row, "input": None}).preferences
    assert with_input.question == "Solve it.\nWhat is 2 + 3?"
    assert (without.question, null.question) == ("Solve it.", "Solve it.")
    (elsewhere,) = load(tmp_path, {"question": "Q", "input": "of another kind", "answer": "#### 5"}).preferences
    assert elsewhere.question == "Q"


AWKWARD = {
    "an integer of 400 digits": ({"confidence": int("9" * 400)}, "confidence': 99999999999999999999 is not between"),
    "not a number": ({"confidence": float("nan")}, "confidence': nan is not between"),
    "a role that is a list": ({"history": [{"role": ["user"], "content": "Q"}]}, "the role is \"['user']\", expected"),
    "meta that is no object": ({"meta": [1]}, "column 'meta': expected an object, got a list"),
    "not a number in meta": ({"meta": {"x": [float("nan")]}}, "column 'meta' holds what JSON cannot"),
    "half a surrogate in a name": ({"\ud800": 1}, "half of a surrogate pair"),
    "half a surrogate in a name further in": ({"meta": {"\udfff": 1}}, "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_one_awkward_row_is_one_bad_row(name: str, tmp_path: Path) -> None:
    more, reason = AWKWARD[name]
    good = {"question": "What is 2 + 3?", "chosen": "5", "rejected": "6"}
    loaded = load(tmp_path, good, {**good, **more}, {**good, "chosen": "five"}, max_bad=0.5)
    (bad,) = loaded.bad
    assert (bad.line, len(loaded.preferences)) == (2, 2)
    assert reason in bad.reason


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    row = {"query": "Q", "good": "5", "bad": "6"}
    loaded = load(tmp_path, row, columns={"prompt": "query", "chosen": "good", "rejected": "bad"})
    assert loaded.preferences[0].chosen == "5"
    with pytest.raises(ValueError, match="did you mean 'prompt'"):
        load(tmp_path, row, format=Format.TRL, columns={"promt": "query"})
    with pytest.raises(UserError, match="the format has no such column"):
        load(tmp_path, row, format=Format.TRL, columns={"question": "query"})


def test_a_row_found_bad_later_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"question": f"{n}?", "chosen": "5", "rejected": "6"} for n in range(4)]
    file.write_text("\n".join(map(json.dumps, rows)))
    loaded = Dataset(path=str(file), heldout=1, max_bad=0.3).load()
    again = loaded.with_bad([bad_row(loaded.places[0], "a chat template refuses it", "?")])
    assert len(again.preferences) == len(again.places) == 2
    assert {name: again.counts[name] for name in ("rows", "usable", "bad", "train", "heldout")} == {
        "rows": 4, "usable": 3, "bad": 1, "train": 2, "heldout": 1,
    }  # fmt: skip
    enforce(again)  # 1 of 4, not of 5
    with pytest.raises(UserError, match="1 of 4 rows"):
        enforce(again, 0.2)


def test_unknown_columns_are_refused_with_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no known format has these columns: text\n  preferences: chosen, question"):
        load(tmp_path, {"text": "Q"})


def test_a_column_nobody_reads_is_counted_and_its_likely_name_given(tmp_path: Path) -> None:
    row = {k: v for k, v in STEP.items() if k != "initial_reason_steps"} | {"inital_reason_steps": "x"}
    counts = load(tmp_path, row).counts
    assert counts["column 'inital_reason_steps' is ignored; did you mean 'initial_reason_steps'?"] == 1


# Oddities, limits, held-out questions


def test_oddities_are_found_and_kept(tmp_path: Path) -> None:
    swapped = PAIR | {"chosen": "6", "rejected": "5"}
    longer = PAIR | {"rejected": "5 or so"}
    spaced = PAIR | {"rejected": " 5"}
    loaded = load(tmp_path, PAIR, PAIR, swapped, longer, spaced)
    assert len(loaded.preferences) == 5
    assert {f.kind: [p.rpartition(":")[2] for p in f.places] for f in loaded.findings} == {
        "the same preference more than once": ["1", "2"],
        "opposite preferences about the same two steps": ["1", "2", "3"],
        "chosen is the beginning of rejected": ["4"],
        "chosen and rejected differ only in white space": ["5"],
    }
    assert loaded.counts["the same preference more than once"] == 1


def test_limit_counts_usable_rows(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"prompt": "x"}, *GOOD, limit=2)
    assert (len(loaded.preferences), len(loaded.bad)) == (2, 1)


@given(
    questions=st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=40).filter(lambda q: len(set(q)) > 1),
    wanted=st.one_of(st.integers(0, 3), st.sampled_from(["0%", "10%", "20%", 0.1])),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_question_is_either_trained_on_or_held_out(
    tmp_path: Path, questions: list[str], wanted: Any, seed: int
) -> None:
    rows = [
        {"prompt": q.upper() if i % 2 else f" {q}", "chosen": str(i), "rejected": "x"} for i, q in enumerate(questions)
    ]
    try:
        loaded = load(tmp_path, *rows, heldout=wanted, seed=seed, format=Format.TRL)
    except UserError:
        return
    held = {p.question.strip().lower() for p in loaded.heldout}
    assert not held & {p.question.strip().lower() for p in loaded.preferences}
    assert len(loaded.heldout) >= amount(wanted, len(rows))
    assert len(loaded.heldout) + len(loaded.preferences) == len(rows)
    again = load(tmp_path, *reversed(rows), heldout=wanted, seed=seed, format=Format.TRL)
    assert {p.question.strip().lower() for p in again.heldout} == held


def test_holding_out_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves none of the 3 preferences"):
        load(tmp_path, *GOOD, heldout=3)


def test_shares() -> None:
    assert (share("1%"), share(0.5), share("0.25"), amount("5%", 40), amount(7, 3), amount("7", 3)) == (
        0.01, 0.5, 0.25, 2, 7, 7,
    )  # fmt: skip
    for wrong in ("many", "101%", -0.1):
        with pytest.raises(ValueError, match="expected a share"):
            share(wrong)
    for settings_ in ({"max_bad": "x"}, {"heldout": -1}, {"limit": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings_))}"):
            Dataset(path="a", **settings_)  # type: ignore[arg-type]


# Config


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "conf" / "dataset").glob("*.yaml"))])
def test_conf_keys_are_the_fields(name: str) -> None:
    node = OmegaConf.load(ROOT / "conf" / "dataset" / f"{name}.yaml")
    part = build(node)
    assert set(node) - {"_target_"} == {field.name for field in dataclasses.fields(part)}


def test_generated_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("stepdpo.tinymath.problems")
    module.problems = lambda split, count, seed=0: [  # type: ignore[attr-defined]
        Problem(id=f"{split}-{seed}-{i}", question=f"Q {i}", answers=(str(i),), solution=f"It is {i}.")
        for i in range(count)
    ]
    monkeypatch.setitem(sys.modules, "stepdpo.tinymath.problems", module)
    loaded = TinymathSolutions(count=10, heldout=2).load()
    enforce(loaded)
    assert (len(loaded.preferences), len(loaded.heldout)) == (8, 2)
    assert all(p.chosen == f"It is {p.answer}." and not p.rejected for p in loaded.preferences)


# Real data


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "rows", "format_"),
    [
        ("gsm8k_step_pairs", 731, Format.STEP_DPO),
        ("timing_pairs", 1024, Format.STEP_DPO),
        ("step_dpo_10k_sample_steps", 19, Format.STEP_DPO),
        ("step_dpo_10k_sample_steps", 19, Format.AUTO),
        ("step_dpo_10k_sample_full", 10, Format.STEP_DPO),
        ("ultrainteract_pair_example", 1, Format.ULTRAINTERACT),
        ("gsm8k_train", 7473, Format.SOLUTIONS),
        ("math_test", 5000, Format.AUTO),
    ],
)
def test_no_good_row_is_refused(name: str, rows: int, format_: Format) -> None:
    file = SHARED / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"needs {file.name} of the shared data")
    loaded = Dataset(path=str(file), format=format_, max_bad=0).load()
    assert (len(loaded.preferences), loaded.bad) == (rows, ())
    assert not [name for name in loaded.counts if "does not continue" in name or "taken off" in name]
