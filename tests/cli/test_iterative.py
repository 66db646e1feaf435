"""Online rounds: what the words may say, the configuration of every stage, where they stop and go on, the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import overrides, shorthands
from stepdpo.cli.iterative import run
from stepdpo.cli.iterative.config import Iterations, Reference, requested
from stepdpo.cli.iterative.plan import IterationPlan, pairs_config, train_config
from stepdpo.cli.job_config import LAUNCH_KEYS, FollowUp, split
from stepdpo.cli.job_result import JobResult
from stepdpo.cli.overrides import composed
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.report.iterations import iterations_table
from stepdpo.runtime.atomic_io import read_json, write_json, write_jsonl

SECTION = {"count": 3, "reference": "sft", "pairs": "siblings", "problems": 20, "pairs_with": "n=4"}


def asked(given: tuple[str, ...] = (), manifest: Mapping[str, Any] | None = None, **changes: Any) -> Iterations | None:
    return requested(OmegaConf.create({**SECTION, **changes}), manifest or {}, given)


# Words


def test_every_key_is_a_field() -> None:
    section = composed("train", []).rounds
    assert set(section) == set(Iterations().plain())
    assert requested(section, {}, ()) is None


@pytest.mark.parametrize(
    ("word", "long"),
    [
        ("rounds=3", "rounds.count=3"),
        ("pairs=siblings", "rounds.pairs=siblings"),
        ("rounds.pairs_with=n=4 limit=5", "rounds.pairs_with='n=4 limit=5'"),
        ("rounds.count=2", "rounds.count=2"),
    ],
)
def test_shorthands(word: str, long: str) -> None:
    known = shorthands.groups([conf()])
    assert shorthands.normalise("train", [word], known) == [long]
    if word.startswith("pairs"):
        assert shorthands.normalise("pairs", [word], known) == [word]


def test_words_of_the_pairs_go_within() -> None:
    with pytest.raises(UserError, match=r'rounds\.pairs_with="judge=exact"'):
        overrides.check("train", ["judge=exact"], sweep=False)


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({"pairs": "sibling"}, (), "pairs=sibling: there is no such pairs; did you mean 'siblings'?"),
        ({"pairs_with": "temprature=1"}, (), "did you mean 'temperature'?"),
        ({"pairs_with": "limit=10"}, (), "rounds.problems"),
        ({"pairs_with": ["model.path=x"]}, (), "for the rounds to say"),
        ({"reference": "stf"}, (), "rounds.reference: did you mean 'sft'?"),
        ({"count": -1}, (), "count must not be negative"),
        ({"problems": 0}, (), "problems must be at least 1"),
        ({"count": 0}, ("rounds.pairs=siblings",), "say how many rounds"),
        ({}, ("dataset=tinymath",), "rounds train on the pairs that they make themselves"),
        ({"colour": 1}, (), "rounds.colour"),
    ],
)
def test_what_cannot_be_meant(changes: dict[str, Any], given: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        asked(given, **changes)
    assert said in str(caught.value)


def test_a_resumed_run_remembers_its_rounds() -> None:
    """The number of rounds may grow, and later rounds may be made otherwise; reference and method stay."""
    started = {"rounds": {**SECTION, "reference": "previous"}}
    defaults = {"count": 0, "pairs_with": ""}
    same = asked((), started, **defaults)
    assert same == Iterations(3, Reference.previous, "siblings", 20, "n=4")
    more = asked(("rounds.count=5", "rounds.problems=7"), started, count=5, problems=7, pairs_with="")
    assert more == replace(same, count=5, problems=7)
    with pytest.raises(UserError, match=r"started with rounds\.reference=previous, not sft"):
        asked(("rounds.reference=sft",), started)
    with pytest.raises(UserError, match="started without rounds"):
        asked(("rounds.count=3",), {"argv": []})


# Configurations


def plan(folder: Path, *words: str, **changes: Any) -> IterationPlan:
    _, config = split(composed("train", ["template=alpaca", "model=pretrained", "model.path=base", *words]))
    iterations = replace(Iterations(count=3, problems=20, pairs_with="n=4 task=gsm8k"), **changes)
    return IterationPlan(folder, config, {"algo": "dpo", "model": "pretrained"}, iterations, FollowUp(), folder.parent)


def made(folder: Path, config: DictConfig) -> None:
    folder.mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml")


def test_every_round_takes_new_problems(tmp_path: Path) -> None:
    """Also where their number changes on the way: from where the round before ended."""
    of = plan(tmp_path)
    for number, problems in enumerate((20, 20, 5), start=1):
        of = replace(of, iterations=replace(of.iterations, problems=problems))
        made(of.pairs(number), pairs_config(of, number))
    slices = [OmegaConf.load(of.pairs(number) / "config.yaml") for number in (1, 2, 3)]
    assert [(one.skip, one.limit) for one in slices] == [(0, 20), (20, 20), (40, 5)]
    assert [one.model.path for one in slices] == ["base", *(str(of.train(n) / "model") for n in (1, 2))]
    assert {(one.n, one.task.name, one.template.name) for one in slices} == {(4, "gsm8k", "alpaca")}
    assert not set(LAUNCH_KEYS) & set(slices[0])


@pytest.mark.parametrize("reference", Reference)
def test_what_a_round_trains_on_and_is_held_against(reference: Reference, tmp_path: Path) -> None:
    of = plan(tmp_path, "dataset.heldout=3", "algo.beta=0.9", reference=reference)
    first, second = (train_config(of, number) for number in (1, 2))
    assert first.model.path == "base"
    assert first.reference_model is None
    assert second.model.path == str(of.train(1) / "model")
    assert (second.reference_model and second.reference_model.path) == ("base" if reference is Reference.sft else None)
    assert second.dataset.path == str(of.pairs(2) / "preferences.jsonl")
    assert (second.dataset.heldout, second.algo.beta) == (3, 0.9)
    assert of.config.model.path == "base"


def test_seeds(tmp_path: Path) -> None:
    assert pairs_config(plan(tmp_path, "seed=5"), 1).seed == 5
    assert pairs_config(plan(tmp_path, "seed=5", pairs_with="seed=7"), 1).seed == 7


# Stopping and going on


class Stages:
    """`run_in`, by a script: leaves what a finished stage leaves, or ends as it is told."""

    def __init__(self, **ends: tuple[int, str]) -> None:
        self.ends, self.called = ends, list[str]()

    def __call__(self, folder: Path, verb: str, config: DictConfig, choices: Any, **how: Any) -> JobResult:
        name = f"{folder.parent.name.replace('round-', verb)}{'+' if how.get('resume') else ''}"
        self.called.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml")
        code, message = self.ends.get(name, (0, ""))
        if code == 0 and verb == "pairs":
            write_json(folder / "summary.json", {"counts": {"problems": 20, "pairs": 9}, "seconds": 1.5})
        elif code == 0:
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text(folder.parent.name)
        return JobResult(code, message)


def go(of: IterationPlan, monkeypatch: pytest.MonkeyPatch, **ends: tuple[int, str]) -> tuple[JobResult, list[str]]:
    stages = Stages(**ends)
    monkeypatch.setattr(run, "run_in", stages)
    of.folder.mkdir(exist_ok=True)
    return run._iterations(of), stages.called


def test_stages_that_are_finished_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = plan(tmp_path / "run")
    stopped = JobResult(143, "stopped", begun=True)
    assert go(of, monkeypatch, train2=(143, "stopped")) == (stopped, ["pairs1", "train1", "pairs2", "train2"])
    assert not (of.folder / "model").exists()
    result, called = go(of, monkeypatch)
    assert (result.code, called) == (0, ["train2+", "pairs3", "train3"])
    assert (of.folder / "model" / "config.json").read_text() == "round-3"
    assert go(of, monkeypatch)[1] == []
    more = replace(of, iterations=replace(of.iterations, count=4))
    assert go(more, monkeypatch)[1] == ["pairs4", "train4"]
    assert (of.folder / "model" / "config.json").read_text() == "round-4"
    assert [row["round"] for row in read_json(of.folder / "rounds.json")["rows"]] == [1, 2, 3, 4]
    assert "| 4 | 20 | 9 | 2 |" in capsys.readouterr().out


def test_a_round_without_pairs_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = plan(tmp_path / "run")
    result, called = go(of, monkeypatch, pairs2=(2, "no pair came of it"))
    assert called == ["pairs1", "train1", "pairs2"]
    assert (result.code, result.begun) == (2, True)
    assert result.message == (
        f"round 2 did not come about, {of.folder / 'model'} is that of round 1: no pair came of it"
    )
    assert (of.folder / "model" / "config.json").read_text() == "round-1"


def test_a_first_round_without_pairs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = plan(tmp_path / "run")
    result, _ = go(of, monkeypatch, pairs1=(2, "no pair came of it"))
    assert (result.message, result.begun) == ("no pair came of it", False)
    assert not (of.folder / "model").exists()


# The table


def evaluated(run: Path, right: str) -> None:
    """An evaluation of problems that were answered rightly (1) or wrongly (0)."""
    folder = run / "eval" / "quiz"
    folder.mkdir(parents=True)
    verdicts = [{"verdict": "correct" if one == "1" else "wrong", "extracted": "", "reason": ""} for one in right]
    attempts = [
        {
            "problem_id": str(number), "question": "?", "answers": ["1"], "response": "", "tokens": 1, "finish": "eos",
            "official": verdict, "strict": verdict,
        }
        for number, verdict in enumerate(verdicts)
    ]  # fmt: skip
    write_jsonl(folder / "attempts.jsonl", attempts)
    write_json(folder / "summary.json", {"task": "quiz", "decode": "greedy", "n": len(right)})


def test_the_table_against_hand_counts(tmp_path: Path) -> None:
    """Round 1 gains 2 of 8, nothing lost: p = 2 * 0.5^2 = 0.5. Round 2 gains 6 over the base: p = 2 * 0.5^6 = 1/32;
    over round 1 it gains 4: p = 2 * 0.5^4 = 1/8."""
    trained = [tmp_path / f"round-{number}" / "train" for number in (1, 2)]
    for folder, right in zip([tmp_path / "base", *trained], ("00000011", "00001111", "11111111"), strict=True):
        evaluated(folder, right)
    for folder in trained:
        (folder.parent / "pairs").mkdir()
        made_of = {"counts": {"problems": 20, "pairs": 9}, "seconds": 1.5}
        write_json(folder.parent / "pairs" / "summary.json", made_of)
    write_json(trained[0].parent / "seconds.json", {"train": 12.2})
    rows, text = iterations_table(trained, tmp_path / "base")
    assert [(row["round"], row["accuracy"], row["p_base"], row["p_before"]) for row in rows] == [
        (0, 0.25, None, None), (1, 0.5, 0.5, 0.5), (2, 1.0, 1 / 32, 1 / 8),
    ]  # fmt: skip
    assert rows[1]["stderr"] == pytest.approx((0.5 * 0.5 / 8) ** 0.5)
    assert "| 1 | 20 | 9 | 2 | 12 | quiz | 50.0 ± 17.7 | 8 | 0.5 | 0.5 |" in text
    assert iterations_table(trained, None)[0][0]["p_before"] is None
