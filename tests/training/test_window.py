"""Averages between two lines of the log."""

from __future__ import annotations

import pytest

from stepdpo.training.loop import MetricWindow


def update(loss: float, pairs: float, lr: float, tokens: float, seconds: float) -> dict[str, float]:
    return {"loss": loss, "pairs": pairs, "lr": lr, "grad_norm": 2 * lr, "tokens": tokens, "seconds": seconds}


def test_means_weigh_pairs_and_rates_weigh_time() -> None:
    """Losses 1 over 128 pairs and 4 over 64: (128 + 256) / 192 = 2. lr and grad_norm are the last ones."""
    window = MetricWindow()
    window.add(update(1.0, 128, 0.1, 9000, 3.0))
    window.add(update(4.0, 64, 0.2, 3000, 1.0))
    line = window.close(epoch=1.5)
    assert line == pytest.approx(
        {
            "loss": 2.0,
            "lr": 0.2,
            "grad_norm": 0.4,
            "epoch": 1.5,
            "tokens_per_second": 12_000 / 4,
            "pairs_per_second": 192 / 4,
        }
    )


def test_a_closed_window_is_empty() -> None:
    window = MetricWindow()
    window.add(update(1.0, 10, 0.1, 100, 1.0))
    window.close(epoch=0.1)
    window.add(update(5.0, 1, 0.3, 50, 2.0))
    line = window.close(epoch=0.2)
    assert (line["loss"], line["tokens_per_second"], line["pairs_per_second"]) == (5.0, 25.0, 0.5)
