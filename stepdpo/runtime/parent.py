"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""


def end_with(parent: int) -> Callable[[], None]:
    """What a child of process `parent` calls to get SIGTERM when that dies, however it dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc = ctypes.CDLL(None)  # loaded ahead: between fork and exec as little as possible may happen

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died before the kernel was asked to tell
            os.kill(os.getpid(), signal.SIGTERM)

    return in_child
