"""Judging from a record of roll-outs: the figures by hand, the table, the committed results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted import LONG, Scripted, context, opened, run, spoil

from benchmarks.judges import CURVE, MOST, RESULTS, Recorder, judged, shares
from benchmarks.judges_table import Case, Roll, summary, tables
from stepdpo.core.steps import split_steps
from stepdpo.core.types import Completion, Preference
from stepdpo.data.preference_file import write_preferences
from stepdpo.pairs.judges.rollouts import Rollouts, SearchStrategy
from stepdpo.pairs.solutions import Solution

WRONG = spoil(LONG, 1)
HEAD, STEPS = split_steps(WRONG)
SOLUTION = Solution("s0", HEAD, tuple(STEPS), False)
GIVEN = context(1)
BINARY = Rollouts(8, search=SearchStrategy.binary)


def case(error: int | None, successes: list[int]) -> Case:
    """A solution of as many steps; before each of them so many roll-outs, the last ones, of 32 are right."""
    rolls = [
        [Roll(Completion(f" {k} {i}", 9, "eos"), i >= MOST - some) for i in range(MOST)]
        for k, some in enumerate(successes)
    ]
    return Case(LONG, replace(SOLUTION, steps=tuple(STEPS[: len(successes)])), error, rolls)


def test_the_judge_runs_on_the_record() -> None:
    """Three steps, the second wrong. Step 2 succeeds at once (2 roll-outs), step 3 never (8): 10 of 9 tokens each."""
    found = judged(BINARY, 8, [case(1, [32, 32, 0])], GIVEN)
    assert [(one.error, one.rollouts, one.tokens) for one in found[0]] == [(1, 10, 90)] * 4
    (once,) = judged(Rollouts(32, at_first=32, search=SearchStrategy.binary), 32, [case(1, [32, 32, 0])], GIVEN)
    assert [(one.error, one.rollouts) for one in once] == [(1, 64)]


def test_every_part_of_a_record_has_its_own_roll_outs() -> None:
    """Only the last 8 of 32 before step 2 are right: of four parts of eight, the last finds it."""
    found = judged(BINARY, 8, [case(1, [32, 8, 0])], GIVEN)
    assert [one.error for one in found[0]] == [0, 0, 0, 1]


def test_hits_misses_and_their_error() -> None:
    """Four parts each of two cases of one problem: 4 and 1 hits of 4, hence 5 of 8, three times too early.

    The deviations from 5/8 are 3/8 and -3/8; of one problem they cancel, and of two they give sqrt(18/64) / 2.
    """
    one, other = case(1, [32, 32, 0]), case(1, [32, 8, 0])
    for cases, error in (
        ([one, other], 0.0),
        ([one, replace(other, problem=replace(LONG, id="another"))], (18 / 64) ** 0.5 / 2),
    ):
        found = {("binary", 8): judged(BINARY, 8, cases, GIVEN)}
        results = summary(cases, found)
        (row,) = results["curve"]
        assert (row["hits"], row["early"], row["late"], row["none"]) == (5 / 8, 3 / 8, 0, 0)
        assert row["error"] == pytest.approx(error)
        # of the first parts: one right, one early
        assert results["confusion"]["binary"] == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
        assert results["around"][1] == {"after": 0, "prefixes": 2, "right": 40 / 64, "any": 1.0, "quarter": 0.0}
        assert "| binary | 8 | 62.5%" in tables(results)


def test_recording() -> None:
    prefix = SOLUTION.prefix(1)
    texts = {opened(LONG): ["\n" + WRONG], opened(LONG) + "\n" + prefix: [LONG.solution[len(prefix) :], " no"]}
    recorder = Recorder(2)
    run(recorder, Scripted(texts), [LONG], GIVEN)
    (one,) = recorder.cases
    assert (one.solution.text, one.error) == (WRONG, 1)
    assert [sum(roll.right for roll in rolls) for rolls in one.rolls] == [0, MOST // 2, *[0] * (len(STEPS) - 2)]


def test_the_share_of_right_pairs(tmp_path: Path) -> None:
    """A right pair, and one whose wrong step comes too early."""
    pairs = []
    for step in (1, 0):
        prefix = SOLUTION.prefix(step)
        right, wrong = LONG.solution[len(prefix) :], WRONG[len(prefix) :]
        meta = {"step": step, "prefix_rate": 0.3}
        pairs.append(Preference(LONG.question, prefix, right, wrong, answer=LONG.answers[0], meta=meta))
    write_preferences(pairs, tmp_path / "preferences.jsonl")
    table = shares(tmp_path)
    assert "| >= 0.25 | 2 | 50.0% | 100.0% | 50.0% |" in table


def test_committed_results_have_their_form() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert results["cases"] >= 300
    assert {row["search"] for row in results["curve"]} == {*(search.value for search in SearchStrategy), "at once"}
    assert {row["n"] for row in results["curve"]} == set(CURVE)
    for row in results["curve"]:
        assert 0 <= row["hits"] <= row["hits"] + row["early"] + row["late"] + row["none"] <= 1 + 1e-9
    assert tables(results)
