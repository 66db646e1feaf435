"""The picture: every dot in its interval, every interval where the axis says, whatever runs are called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stepdpo.evaluation.statistics import wilson
from stepdpo.report.picture import COLUMNS, LONGEST, picture


def row(run: str, correct: int, n: int) -> dict[str, Any]:
    low, high = wilson(correct, n)
    return {"run": run, "accuracy": correct / n, "ci_low": low, "ci_high": high}


def test_as_it_looks() -> None:
    """280/600: 42.7 to 50.7; 442/600: 70.0 to 77.0. 62 columns from 40 to 80, so 1.5 a point."""
    assert picture([row("base", 280, 600), row("step_dpo", 442, 600)]) == [
        "base      ·   ├─────●──────┤              ·              ·               ·  46.7",
        "step_dpo  ·               ·               ·              ├─────●────┤    ·  73.7",
        "          ┴───────────────┴───────────────┴──────────────┴───────────────┴",
        "          40             50              60             70              80",
    ]


@given(
    st.lists(
        st.tuples(st.text(max_size=50), st.integers(0, 700), st.integers(1, 700)).map(
            lambda made: row(made[0], min(made[1:]), made[2])
        ),
        min_size=1,
        max_size=9,
    )
)
def test_lines_are_aligned_and_dots_lie_in_their_intervals(rows: list[dict[str, Any]]) -> None:
    *lines, ruler, numbers = picture(rows)
    assert len({cell_len(line) for line in lines}) == 1
    assert max(map(cell_len, [*lines, ruler, numbers])) <= COLUMNS
    ends = ruler.index("┴"), ruler.rindex("┴")
    ticks = [int(number) for number in numbers.split()]
    assert len(ticks) == ruler.count("┴") >= 2
    for line, shown in zip(lines, rows, strict=True):
        width = ends[1] - ends[0] + 1
        dot = line[-6 - width : -6].rindex("●")
        scale = (width - 1) / (ticks[-1] - ticks[0])
        assert dot == pytest.approx((100 * shown["accuracy"] - ticks[0]) * scale, abs=0.51)
        assert ticks[0] <= 100 * shown["ci_low"] + 1e-9
        assert 100 * shown["ci_high"] <= ticks[-1] + 1e-9
        assert all(letter.isprintable() for letter in line)


def test_long_and_wide_names() -> None:
    lines = picture([row("x" * 40, 1, 2), row("数" * 30, 1, 2), row("dpo\x1b[2J", 1, 2)])
    assert lines[0].startswith("x" * (LONGEST - 1) + "…  ")
    assert {cell_len(line) for line in lines[:3]} == {COLUMNS}
    assert "\x1b" not in lines[2]


@pytest.mark.parametrize("correct", [0, 7])
def test_nothing_or_everything_right(correct: int) -> None:
    (line, *_) = picture([row("dpo", correct, 7)])
    assert "●" in line
    assert ("├" in line, "┤" in line) == (correct == 7, correct == 0)  # the dot stands on the other end
