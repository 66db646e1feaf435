"""Memory of `stepdpo pairs` while 100,000 problems stream through. `make bench-pairs-stream`.

Everything is real but the model, which costs nothing: it is told every other answer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from omegaconf import OmegaConf

from benchmarks.machine import machine, versions
from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.overrides import composed
from stepdpo.core.config import build
from stepdpo.core.types import Completion, Problem, Sampling
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.config import PairsConfig
from stepdpo.tinymath.problems import stream

SETTLED = 0.1
"""Share of the problems after which memory should have settled."""


@dataclass(frozen=True)
class Costless:
    """Answers at once, right and wrong in turn, and notes the memory of the process."""

    live: int
    told: Iterator[Problem]
    """The problems in the order in which they are asked."""
    seen: list[int] = field(default_factory=list)
    """Bytes at every call."""

    @contextmanager
    def open(self, model: Any) -> Iterator[Costless]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.seen.append(psutil.Process().memory_info().rss)
        return [self._write(next(self.told).answers[0], params.n) for _ in prompts]

    def _write(self, answer: str, n: int) -> list[Completion]:
        said = [answer if number % 2 else f"{answer}0" for number in range(n)]
        return [Completion(f"\nStep 1: It is {text}.\nThe answer is: {text}", 12, "eos") for text in said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=100_000)
    options = parser.parse_args()
    config: Any = composed("pairs", [f"limit={options.problems}", "pairs=sampled", "n=2", "template=alpaca"])
    settings: Any = OmegaConf.to_container(config, resolve=True)
    spec = build({key: value for key, value in settings.items() if key not in LAUNCH_KEYS})
    assert isinstance(spec, PairsConfig)
    sampler = Costless(spec.live, stream("preference", options.problems))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        began = time.monotonic()
        build_pairs(replace(spec, sampler=sampler), Path(folder))
        seconds = time.monotonic() - began
    _show(sampler, options.problems, seconds)


def _show(sampler: Costless, problems: int, seconds: float) -> None:
    print(f"{machine()}; {versions()}")
    print(f"{problems:,} problems in {seconds:.0f} s\n\n| problems | resident MiB |\n|---|---|")
    for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0):
        call = min(len(sampler.seen) - 1, int(share * len(sampler.seen)))
        print(f"| {call * sampler.live:,} | {sampler.seen[call] / 2**20:.1f} |")
    settled = sampler.seen[int(SETTLED * len(sampler.seen)) :]
    slope = np.polyfit(np.arange(len(settled)) * sampler.live, settled, 1)[0]
    print(f"\n{slope:.0f} bytes a problem after the first {SETTLED:.0%}")


if __name__ == "__main__":
    main()
