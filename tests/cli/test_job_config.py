"""One configuration, split into the launch's settings and the worker's, and those that follow from another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stepdpo.cli.job_config import (
    LAUNCH_KEYS,
    FollowUp,
    LaunchSettings,
    evaluation_config,
    split,
    with_model,
    with_task,
)
from stepdpo.cli.overrides import composed
from stepdpo.core.config import TARGET
from stepdpo.core.errors import UserError


@pytest.mark.parametrize("verb", ["train", "eval", "pairs"])
def test_the_two_halves_of_a_configuration(verb: str) -> None:
    whole = composed(verb, ["run=x", "force=true"])
    before = OmegaConf.to_yaml(whole)
    settings, config = split(whole)
    assert OmegaConf.to_yaml(whole) == before
    assert set(config) == set(whole) - set(LAUNCH_KEYS)
    assert (settings.run, settings.runs, settings.force, settings.resume) == ("x", Path("runs"), True, False)
    assert bool(settings.rounds) == (verb == "train")


def test_a_users_option_may_name_a_part_as_it_was_called() -> None:
    whole = composed("train", ["algo=dpo"])
    whole.level[TARGET] = "stepdpo.level.Step"
    _, config = split(whole)
    assert config.level[TARGET] == "stepdpo.data.level.Step"
    assert whole.level[TARGET] == "stepdpo.level.Step"


def test_settings_of_the_launch() -> None:
    words = ["then=[gsm8k,math]", "then_with='task.limit=5 decode=greedy'", "resume=true", "rounds.count=2"]
    settings, _ = split(composed("train", words))
    assert settings.follow_up == FollowUp(("gsm8k", "math"), ("task.limit=5", "decode=greedy"))
    assert (settings.run, settings.resume, settings.rounds["count"]) == ("", True, 2)
    assert split(composed("train", ["then_with=['task.limit=5']"]))[0].follow_up.words == ("task.limit=5",)
    assert split(composed("eval", ["tasks=[gsm8k,math]"]))[0].tasks == ("gsm8k", "math")
    assert split(composed("eval", []))[0] == LaunchSettings(run="", runs=Path("runs"))


@pytest.mark.parametrize("key", ["force", "resume"])
@pytest.mark.parametrize(("word", "meant"), [("no", False), ("off", False), ("yes", True), ("on", True), ("1", True)])
def test_words_for_true_and_false_mean_what_they_say(key: str, word: str, meant: bool) -> None:
    assert getattr(split(composed("train", [f"{key}={word}"]))[0], key) is meant


@pytest.mark.parametrize(
    "word",
    [
        "force=yes_please", "force=2.5", "force=[true]", "resume=maybe", "run=[a]", "run={a: 1}", "runs=[a]",
        "runs=null", "then=[[a]]", "then_with={a: 1}",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=rf"^{word.partition('=')[0]}\b.*expected"):
        split(composed("train", [word]))


def test_one_task_is_a_list_of_it() -> None:
    assert split(composed("train", ["then=gsm8k"]))[0].follow_up.tasks == ("gsm8k",)
    assert split(composed("eval", ["tasks=gsm8k"]))[0].tasks == ("gsm8k",)


def test_words_for_a_task_are_for_every_task() -> None:
    _, config = split(composed("eval", ["task=tinymath"]))
    words = ["task=gsm8k", "tasks=[gsm8k,math]", "task.limit=5", "decode.max_tokens=7"]
    for task in ("gsm8k", "math"):
        assert (with_task(config, task, words).task.name, with_task(config, task, words).task.limit) == (task, 5)


def test_what_follows_is_what_the_run_was_started_with_unless_said_anew() -> None:
    manifest = {"then": ["gsm8k"], "then_with": ["task.limit=5"]}
    assert FollowUp().or_as_started(manifest) == FollowUp(("gsm8k",), ("task.limit=5",))
    assert FollowUp(words=("task.limit=9",)).or_as_started(manifest) == FollowUp(("gsm8k",), ("task.limit=5",))
    assert FollowUp(("math",)).or_as_started(manifest) == FollowUp(("math",))
    assert FollowUp().or_as_started({}) == FollowUp()
    assert FollowUp(("math",), ("sampler.api_key=CANARY",)).to_manifest() == {
        "then": ["math"],
        "then_with": ["sampler.api_key=***"],
    }


def test_a_derived_configuration_leaves_its_source_alone() -> None:
    _, config = split(composed("eval", ["task=tinymath"]))
    before = OmegaConf.to_yaml(config)
    assert with_task(config, "gsm8k").task.name == "gsm8k"
    assert with_model(config, Path("runs/x/model")).model.path == "runs/x/model"
    assert OmegaConf.to_yaml(config) == before


def test_an_evaluation_of_a_training() -> None:
    """Of its model, else of its base, under its template."""
    _, training = split(composed("train", ["template=alpaca", "model=pretrained", "model.path=base"]))
    base = evaluation_config("gsm8k", ["task.limit=5"], training)
    assert (base.model.path, base.template.name, base.task.name, base.task.limit) == ("base", "alpaca", "gsm8k", 5)
    assert evaluation_config("gsm8k", [], training, Path("x/model")).model.path == "x/model"
    assert not set(LAUNCH_KEYS) & set(base)
