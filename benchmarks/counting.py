"""FLOPs of our step at shapes too large to run: the real code on tensors without data, `python -m benchmarks.counting`.

The same counter as everywhere. In a process of its own, because nothing that is cached there may reach a real run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import flops, ours, shapes
from benchmarks.cases import CASES
from benchmarks.sides import Work

SHAPES = {shape.name: shape for shape in (shapes.BENCH_32K, shapes.BENCH_152K, shapes.QWEN2_7B)}
PAIRS = 8


def at_shape(name: str, loss: str = "dpo") -> tuple[int, int]:
    """(operations of our step, the floor) for a micro-batch of step-level pairs at a named shape."""
    command = [sys.executable, "-m", "benchmarks.counting", name, loss]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    ours_flops, floor = json.loads(done.stdout.strip().splitlines()[-1])
    return ours_flops, floor


def count(work: Work) -> int:
    """Operations of one step of ours, without computing anything."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        side = ours.ours(work)
        return flops.counted(side.step)[0]


def _main(name: str, loss: str) -> None:
    shape = SHAPES[name]
    drawn = CASES[0].rows(PAIRS)
    work = Work(shape, drawn, loss, known=False)
    print(json.dumps([count(work), flops.floor(shape, ours.apart(drawn), loss == "tdpo2")]))


if __name__ == "__main__":
    _main(*sys.argv[1:3])
