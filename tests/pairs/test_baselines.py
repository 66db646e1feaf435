"""Rows for other methods, from the very samples that step pairs are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.forgetful import forgetful
from support.scripted import LONG, Scripted, context, opened, preferences, run, spoil, whole

from stepdpo.core.steps import join_steps, split_steps
from stepdpo.data.level import Instance, Prefix
from stepdpo.data.preference_file import from_row
from stepdpo.pairs.baselines import baselines, continuation
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.engine.requests import BASELINES
from stepdpo.pairs.judges.exact import Exact
from stepdpo.pairs.localise import Localise
from stepdpo.pairs.siblings import Siblings
from stepdpo.pairs.solutions import Faults, Solution

GOLD = LONG.solution
HEAD, STEPS = split_steps(GOLD)


def lucky(index: int) -> str:
    """A wrong step, and the right final answer all the same."""
    return spoil(LONG, index).rpartition(" ")[0] + f" {LONG.answers[0]}"


def solution(text: str, correct: bool, error: int | None, name: str = "s") -> Solution:
    head, steps = split_steps(text)
    return Solution(name, head, tuple(steps), correct, error)


RIGHT = solution(GOLD, True, None, "right")
WRONG = solution(spoil(LONG, 1), False, 1, "wrong")
LUCKY = solution(lucky(2), True, 2, "lucky")


def test_every_file_takes_what_its_name_says() -> None:
    searched = solution("Well. " + GOLD, True, None, "r0")
    made = baselines(LONG, [RIGHT, WRONG, LUCKY, RIGHT], [RIGHT, searched], [(1, searched), (0, LUCKY)], 4)
    assert set(made) == set(BASELINES)
    texts = {name: [(row.prefix + row.chosen + row.chosen_rest) for row in rows] for name, rows in made.items()}
    assert texts["right_solutions"] == [GOLD, lucky(2)]  # an outcome filter keeps the lucky one
    assert texts["verified_solutions"] == [GOLD]
    assert texts["searched_solutions"] == [
        "Well. " + GOLD
    ]  # the solutions of the chosen steps that are right throughout
    assert texts["more_right_solutions"] == [GOLD, lucky(2), "Well. " + GOLD]
    assert [(row.chosen, row.rejected) for row in made["instance_pairs"]] == [(GOLD, spoil(LONG, 1))]
    for name, rows in made.items():
        assert all(row.whole is (name != "continuations") for row in rows)
        assert name == "instance_pairs" or not any(row.rejected or row.rejected_rest for row in rows)
        assert {row.meta["problem"] for row in rows} == {LONG.id}


@pytest.mark.parametrize("error", [None, 2, 3])
def test_a_continuation_ends_before_its_own_first_wrong_step(error: int | None) -> None:
    row = continuation(LONG, 1, solution(GOLD, True, error))
    assert row.prefix == join_steps(HEAD, STEPS[:1]) + "Step 2:"
    assert row.prefix + row.chosen == join_steps(HEAD, STEPS[:2]).removesuffix("\n")
    assert row.prefix + row.chosen + row.chosen_rest == join_steps(HEAD, STEPS[:error]).removesuffix("\n")
    assert row.meta["first_wrong"] == error
    pair = Instance(prefix=Prefix.prompt)(row)
    assert (pair.context, pair.chosen, pair.rejected) == (row.prefix, row.chosen + row.chosen_rest, "")
    assert pair.chosen_ends is (error is None)  # a rest that was cut off must not teach to stop there


def test_one_run_of_siblings_makes_them_all_and_counts_their_tokens() -> None:
    prefix = join_steps(HEAD, STEPS[:1]) + "Step 2:"
    texts = {
        opened(LONG): ["\n" + spoil(LONG, 1), "\n" + lucky(1)],
        opened(LONG) + "\n" + prefix: [GOLD[len(prefix) :]],
    }
    method = Siblings(resample=3, baselines=True, extra_samples=5)
    (finished,) = run(method, Scripted(texts), [LONG], context(2))
    found = {name: [row.chosen for row in rows] for name, rows in finished.result.baselines.items()}
    assert found["right_solutions"] == found["more_right_solutions"] == [lucky(1)]
    assert found["verified_solutions"] == []
    assert found["searched_solutions"] == [GOLD]
    assert [whole(row)[0] for row in finished.result.baselines["continuations"]] == [GOLD]
    counts = finished.result.counts
    tokens = {part: counts[f"tokens of {part}"] for part in ("samples", "search", "extra samples")}
    assert tokens == {"samples": 2 * 9, "search": 3 * 9, "extra samples": 5 * 9}
    assert finished.tokens == sum(tokens.values())
    (alone,) = run(Siblings(resample=3), Scripted(texts), [LONG], context(2))
    assert alone.result.preferences == finished.result.preferences
    assert alone.result.baselines == {}


def test_faults_of_solutions_that_end_right() -> None:
    texts = {opened(LONG): ["\n" + GOLD, "\n" + lucky(1)]}
    assert preferences(run(Siblings(), Scripted(texts), [LONG])) == []
    (pair,) = preferences(run(Siblings(faults=Faults.any), Scripted(texts), [LONG]))
    assert whole(pair) == (GOLD, lucky(1))
    prefix = join_steps(HEAD, STEPS[:1]) + "Step 2:"
    texts |= {opened(LONG) + "\n" + prefix: [GOLD[len(prefix) :]]}
    judged = context(judge=Exact())
    assert preferences(run(Localise(max_per_question=2), Scripted(texts), [LONG], judged)) == []
    method = Localise(max_per_question=2, faults=Faults.any)
    (pair,) = preferences(run(method, Scripted(texts), [LONG], judged))
    assert whole(pair) == (GOLD, lucky(1))


def test_localise_makes_the_same_of_the_same_samples() -> None:
    """With an exact judge that looks at every wrong solution."""
    texts = {opened(LONG): ["\n" + GOLD, "\n" + spoil(LONG, 1), "\n" + lucky(2)]}
    prefix = join_steps(HEAD, STEPS[:1]) + "Step 2:"
    texts |= {opened(LONG) + "\n" + prefix: [GOLD[len(prefix) :]]}
    given = context(3, judge=Exact())
    (siblings,) = run(Siblings(baselines=True), Scripted(texts), [LONG], given)
    (localise,) = run(Localise(baselines=True, rectify=4), Scripted(texts), [LONG], given)

    def chosen(finished: object) -> dict[str, list[str]]:
        rows = finished.result.baselines.items()  # type: ignore[attr-defined]
        return {name: [whole(row)[0] for row in some] for name, some in rows}

    assert chosen(siblings) == chosen(localise)
    assert localise.result.counts["tokens of search"] == 4 * 9
    assert siblings.result.counts["tokens of search"] == 0  # another sample went on rightly


@pytest.mark.parametrize("method", [Siblings(baselines=True), Localise(baselines=True)])
def test_a_problem_that_is_always_solved_gives_right_solutions_all_the_same(method: Siblings | Localise) -> None:
    texts = {opened(LONG): ["\n" + GOLD, "\n" + GOLD]}
    (finished,) = run(method, Scripted(texts), [LONG], context(2, judge=Exact()))
    assert (finished.result.outcome, finished.result.preferences) == ("no wrong sample", ())
    found = {name: [row.chosen for row in rows] for name, rows in finished.result.baselines.items() if rows}
    assert found == {"right_solutions": [GOLD], "verified_solutions": [GOLD]}
    assert finished.result.counts["tokens of samples"] == 2 * 9


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="extra_samples"):
        Siblings(extra_samples=2)


def test_the_files_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are as whole after a resumption as in an unbroken run."""
    spec = forgetful(12)
    spec = replace(spec, pairs=Siblings(baselines=True, extra_samples=3))
    build_pairs(spec, tmp_path / "run")
    files = {path.name: path.read_text() for path in (tmp_path / "run").glob("*.jsonl")}
    assert set(files) == {"finished.jsonl", "preferences.jsonl", *(f"{name}.jsonl" for name in BASELINES)}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    printed = capsys.readouterr().out
    for name, figures in summary["files"].items():
        rows = [from_row(json.loads(line)) for line in files[f"{name}.jsonl"].splitlines()]
        assert len(rows) == figures["rows"]
        assert f"{figures['rows']:>9,}  rows in {name}.jsonl, of {figures['generated_tokens']:,} generated" in printed
    tokens = {name: figures["generated_tokens"] for name, figures in summary["files"].items()}
    assert tokens["right_solutions"] == 12 * 8 * 20
    assert tokens["more_right_solutions"] == 12 * (8 + 3) * 20
    assert tokens["preferences"] + 12 * 3 * 20 == summary["counts"]["tokens"]
    log = (tmp_path / "run" / "finished.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "again").mkdir()
    for name, text in files.items():
        partial = name if name == "finished.jsonl" else name.replace(".jsonl", ".partial.jsonl")
        (tmp_path / "again" / partial).write_text("".join(log[:5]) if name == "finished.jsonl" else text)
    build_pairs(spec, tmp_path / "again", resume=True)
    for name, text in files.items():
        if name != "finished.jsonl":
            assert (tmp_path / "again" / name).read_text() == text
