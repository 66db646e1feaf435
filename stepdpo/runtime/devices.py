"""What this machine has to compute with, without importing torch, which would only make a waiting process large."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path


def gpus() -> tuple[str, ...]:
    """Visible CUDA devices, as CUDA_VISIBLE_DEVICES names them."""
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(map(str, range(devices)))
    names = takewhile(lambda name: name != "-1", (name.strip() for name in visible.split(",")))  # as CUDA reads them
    return tuple(name for name in names if name)[:devices]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
