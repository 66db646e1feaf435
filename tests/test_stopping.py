"""Signals that end work which is saved as it comes."""

from __future__ import annotations

import os
import signal

import pytest

from stepdpo.stopping import CAUGHT, Interrupted, at_once


@pytest.mark.parametrize("signum", CAUGHT)
def test_a_signal_ends_the_block_and_closes_what_is_open(signum: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in CAUGHT]
    closed = []
    with pytest.raises(Interrupted, match=rf"stopped by {signum.name}; all is kept") as stop, at_once("all is kept"):
        try:
            os.kill(os.getpid(), signum)
            while True:
                try:
                    signal.pause()
                except Exception:  # no net for plain exceptions may hold it up
                    continue
        finally:
            closed.append(True)
    assert closed
    assert stop.value.signum == signum
    assert [signal.getsignal(s) for s in CAUGHT] == before
