"""Signals that end work which is saved as it comes."""

from __future__ import annotations

import os
import signal

import pytest

from stepdpo.runtime.signals import CAUGHT, Interrupted, interruptible


def hold(signum: int, closed: list[bool]) -> None:
    """Is told to end, and lets no plain exception do it."""
    with interruptible("all is kept"):
        try:
            os.kill(os.getpid(), signum)
            while True:
                try:
                    signal.pause()
                except Exception:
                    continue
        finally:
            closed.append(True)


@pytest.mark.parametrize("signum", CAUGHT)
def test_a_signal_ends_the_block_and_closes_what_is_open(signum: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in CAUGHT]
    closed: list[bool] = []
    with pytest.raises(Interrupted, match=rf"stopped by {signum.name}; all is kept") as stop:
        hold(signum, closed)
    assert closed == [True]
    assert stop.value.signum == signum
    assert [signal.getsignal(s) for s in CAUGHT] == before
