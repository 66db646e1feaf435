"""The learning rate, by hand."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
import transformers

from stepdpo.training.optimizer import AdamW, Rise, Schedule


def rates(total: int, **settings: object) -> list[float]:
    optim = AdamW(lr=8.0, **settings)  # type: ignore[arg-type]
    return [optim.lr_at(step, total) for step in range(total)]


def test_warmup_rises_in_equal_steps() -> None:
    """A quarter of 16 updates: 1/4, 2/4, 3/4, 4/4 of the peak, and from there on the schedule."""
    assert rates(16, warmup=0.25, schedule=Schedule.constant) == [2.0, 4.0, 6.0, 8.0, *[8.0] * 12]


def test_linear_falls_to_one_step_above_0() -> None:
    """After 2 of 10 updates: 8/8, 7/8, ... 1/8 of the peak."""
    assert rates(10, warmup=0.2, schedule=Schedule.linear) == pytest.approx([4, 8, 8, 7, 6, 5, 4, 3, 2, 1])


def test_cosine_falls_along_half_a_wave() -> None:
    got = rates(10, warmup=0.2)
    assert got[:3] == [4.0, 8.0, 8.0]
    assert got[6] == pytest.approx(8 * 0.5)
    assert got[9] == pytest.approx(8 * 0.5 * (1 + cos(pi * 7 / 8)))
    assert got[2:] == sorted(got[2:], reverse=True)


@pytest.mark.parametrize("schedule", Schedule)
def test_without_warmup_it_starts_at_the_peak(schedule: Schedule) -> None:
    assert rates(5, warmup=0.0, schedule=schedule)[0] == 8.0


@pytest.mark.parametrize("schedule", Schedule)
def test_all_warmup_ends_at_the_peak(schedule: Schedule) -> None:
    assert rates(4, warmup=1.0, schedule=schedule) == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("schedule", Schedule)
def test_a_single_update_is_made_at_the_peak(schedule: Schedule) -> None:
    assert rates(1, schedule=schedule) == [8.0]


@pytest.mark.parametrize(("total", "rising"), [(672, 68), (336, 34)])
def test_step_dpo_warms_up_over_68_and_34_updates(total: int, rising: int) -> None:
    """A tenth, rounded up as transformers does: of 8 and 4 epochs with 84 updates each."""
    got = rates(total)
    assert got[rising - 1] == 8.0
    assert got[rising - 2] == pytest.approx(8.0 * (rising - 1) / rising)
    assert got[rising] == 8.0
    assert got[rising + 1] < 8.0


@pytest.mark.parametrize("total", [1, 10, 336, 672])
@pytest.mark.parametrize("schedule", Schedule)
def test_the_official_rise_is_that_of_transformers(schedule: Schedule, total: int) -> None:
    """Every rate of its scheduler; the first update has none."""
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=8.0)
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    scheduler = transformers.get_scheduler(name, theirs, -(-total // 10), total)
    expected = []
    for _ in range(total):
        expected.append(scheduler.get_last_lr()[0])
        theirs.step()
        scheduler.step()
    assert rates(total, schedule=schedule, rise=Rise.official) == pytest.approx(expected, abs=1e-12)
    assert expected[0] == 0
    assert rates(total, schedule=schedule)[0] > 0


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"warmup": 1.5}, {"warmup": -0.1}, {"clip": -1.0}])
def test_settings_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        AdamW(**settings)  # type: ignore[arg-type]
