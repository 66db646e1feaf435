"""The guard: what of an update's numbers it calls a finding, and on recorded runs when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepdpo.algo.dpo import DPO
from stepdpo.algo.sft import SFT
from stepdpo.runtime.run_folder import passed_bounds
from stepdpo.training.guard import Drift, NoGuard, advice, first_sample

RUNS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "guarded_runs.json").read_text())
"""Recorded by the commands in docs/guard.md: of every update, the metrics that the guard looks at."""
AT_ONCE = [name for name in RUNS["diverging"] if name in ("lr_x30_2", "lr_x30_in_15_updates_0")]
HEALTHY = {"pairs": 32.0, "logratios/chosen": 1.0, "logratios/chosen_per_token": 0.05, "chosen_lost_per_token": 0.0}


def kinds(record: dict[str, float], start: dict[str, float] | None = None, **bounds: Any) -> list[str]:
    return [finding.kind for finding in Drift(**bounds).findings(record, start or {})]


@pytest.mark.parametrize(
    ("name", "value", "bounds", "found"),
    [
        ("logratios/chosen_per_token", -0.2, {"chosen_per_token": 0.2}, []),  # at the bound is not past it
        ("logratios/chosen_per_token", -0.21, {"chosen_per_token": 0.2}, ["chosen_per_token"]),
        ("logratios/chosen_per_token", -9.0, {}, []),  # no bound unless asked
        ("chosen_lost_per_token", 0.25, {"lost_per_token": 0.25}, []),
        ("chosen_lost_per_token", 0.26, {"lost_per_token": 0.25}, ["lost_per_token"]),
        ("chosen_lost_per_token", 9.0, {"lost_per_token": None}, []),
        ("logratios/chosen_per_token", 9.0, {"chosen_per_token": 0.2}, []),  # a gain is none
        ("logratios/chosen", -7.0, {}, []),
        ("logratios/chosen", -7.0, {"chosen": 6.0}, ["chosen"]),
        ("kl/chosen_per_token", 0.3, {"kl_per_token": 0.2}, ["kl_per_token"]),
        ("kl/chosen_per_token", 0.3, {"kl_per_token": 0.4}, []),
    ],
)  # fmt: skip
def test_bounds(name: str, value: float, bounds: dict[str, Any], found: list[str]) -> None:
    assert kinds({**HEALTHY, name: value}, **bounds) == found


def test_samples_are_held_against_the_first_one() -> None:
    start = {"sample/unparsed": 0.25, "sample/run_on": 0.0}
    assert kinds({"sample/unparsed": 0.5, "sample/run_on": 0.0}, start, unparsed=0.25) == []
    assert kinds({"sample/unparsed": 0.75, "sample/run_on": 0.5}, start, unparsed=0.25) == ["unparsed", "run_on"]
    assert kinds({"sample/unparsed": 0.5, "sample/run_on": 0.0}, unparsed=0.25) == ["unparsed"]


def test_a_loss_without_a_reference_has_nothing_to_find() -> None:
    assert kinds({"loss": 40.0, "logps/chosen": -1e6}) == []
    assert NoGuard().findings({"chosen_lost_per_token": 99.0}, {}) == []


def test_what_is_said() -> None:
    record = {**HEALTHY, "chosen_lost_per_token": 0.5, "chosen_fell": 0.75, "rewards/accuracies": 0.875}
    (finding,) = Drift(lost_per_token=0.25).findings(record, {})
    assert finding.value == 0.5
    for words in ("lost 0.5 nats a token", "guard.lost_per_token: 0.25", "75 % of them fell", "(88 %) does not show"):
        assert words in finding.text
    (finding,) = Drift(lost_per_token=0.25).findings({**record, "rewards/accuracies": 0.25}, {})
    assert "rewards" not in finding.text
    assert advice(DPO()).startswith("lower optim.lr")
    assert "algo.beta" in advice(DPO())
    assert advice(SFT()) == "lower optim.lr"


def test_what_metrics_jsonl_says_of_a_run_that_is_resumed() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "sample/unparsed": 0.25, "sample/run_on": 0.125, "sample/tokens": 9.0},
        {"step": 3, "guard/chosen_per_token": 0.5},
        {"step": 4, "loss": 0.5},
        {"step": 5, "guard/unparsed": 0.5, "guard/chosen_per_token": 0.7},
        {"step": 5, "sample/unparsed": 0.75, "sample/run_on": 0.5},
    ]
    assert passed_bounds(lines) == {"chosen_per_token": 3, "unparsed": 5}
    assert first_sample(lines) == {"sample/unparsed": 0.25, "sample/run_on": 0.125}
    assert (passed_bounds([]), first_sample(lines[1:3])) == ({}, {})


def test_three_methods_and_three_seeds_are_recorded() -> None:
    assert sorted(RUNS["healthy"]) == sorted(
        f"{method}_{seed}" for method in ("step_dpo", "instance_dpo", "step_tdpo") for seed in range(3)
    )


@pytest.mark.parametrize("name", RUNS["healthy"])
def test_recorded_runs_that_went_well_are_never_warned(name: str) -> None:
    records = RUNS["healthy"][name]
    assert len(records) == 15
    assert [found for record in records for found in Drift().findings(record, {})] == []


def warned_at(run: dict[str, Any]) -> tuple[int, int]:
    """After how many updates the model is that the first warning is about, and that first lacks five points.

    `accuracy` has the per cent of answers that are right after so many updates; of the base after 0.
    """
    # An update is looked at before it is made: what counts is the model that those before it have left.
    first = next(made for made, record in enumerate(run["records"]) if Drift().findings(record, {}))
    accuracy = {int(update): share for update, share in run["accuracy"].items()}
    return first, min(update for update, share in accuracy.items() if share < accuracy[0] - 5)


@pytest.mark.parametrize("name", [name for name in RUNS["diverging"] if name not in AT_ONCE])
def test_recorded_runs_that_broke_are_warned_before_five_points_are_lost(name: str) -> None:
    run = RUNS["diverging"][name]
    warned, lost = warned_at(run)
    assert warned < lost
    assert run["records"][warned]["rewards/accuracies"] > 0.7, "the usual metric does not show it"


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_run_that_a_single_update_breaks_is_warned_at_the_next(name: str) -> None:
    """The model before it was better than the base."""
    warned, lost = warned_at(RUNS["diverging"][name])
    assert warned == lost
