"""Peak memory of one step above the built models: `python -m benchmarks.memory CASE SIDE`, in fresh processes.

Resident memory is read once the models stand, the kernel's high-water mark is set back, and the mark is read again
after one step. Gradients are part of it; the reference model of a side that keeps one is not.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MB = 1024
PROCESSES = 5


def peak_mb(case: str, side: str) -> float | None:
    """Megabytes of one step of this side, above its models; None where the system does not tell.

    The median of PROCESSES, as the allocator's threads move it by a tenth.
    """
    return median(_in_a_process(case, side) for _ in range(PROCESSES)) if STATUS.exists() else None


def _in_a_process(case: str, side: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", case, side]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {side} in {case} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["peak_mb"])


def _read(field: str) -> float:
    """A field of the process's status, in megabytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / MB
    raise KeyError(field)


def _measure(case_name: str, side_name: str) -> float:
    from benchmarks.cases import CASES, SIDES

    case = next(case for case in CASES if case.name == case_name)
    side = SIDES[side_name](case.work(case.memory, known=False))
    return above(side.step)


def above(action: Callable[[], Any]) -> float:
    """Megabytes that were resident at once while the action ran, above those before it."""
    gc.collect()
    # 5 sets the high-water mark back to what is resident now (proc(5)).
    RESET.write_text("5")
    before = _read("VmRSS")
    action()
    return _read("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps({"peak_mb": _measure(*sys.argv[1:3])}))
