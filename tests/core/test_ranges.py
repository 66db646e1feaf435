"""Settings are refused one by one, each under its own name."""

from __future__ import annotations

import pytest

from stepdpo.core.ranges import at_least, positive, within


def test_what_lies_where_it_may_is_let_pass() -> None:
    positive(beta=0.1, temperature=None)
    at_least(1, pairs=1, limit=None)
    within(0, 1, warmup=0, share=1.0)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_the_first_wrong_one_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=f"^beta must be positive, got {value}$"):
        positive(alpha=1, beta=value, gamma=-1)


def test_the_bounds_are_said() -> None:
    with pytest.raises(ValueError, match=r"^pairs must be at least 2, got 1$"):
        at_least(2, pairs=1)
    with pytest.raises(ValueError, match=r"^seed must not be negative, got -1$"):
        at_least(0, seed=-1)
    with pytest.raises(ValueError, match=r"^warmup must lie in \[0, 1\], got 2$"):
        within(0, 1, warmup=2)
