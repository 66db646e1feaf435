"""All cases, one after another; what is known is written after every case."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import flops, ours, peer_trl
from benchmarks.cases import CASES, SIDES, Case
from benchmarks.counting import PAIRS, at_shape
from benchmarks.exact import errors
from benchmarks.machine import machine, versions
from benchmarks.measure import comparison, counted_only
from benchmarks.memory import peak_mb
from benchmarks.timing import interleaved

HERE = Path(__file__).parent
RESULTS, MORE = HERE / "results.json", HERE / "more.json"
TRL_SIDES = {"trl", "trl_best"}


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    quick: bool = False
    rounds: int = 5
    only: tuple[str, ...] = ()
    """Names of cases; empty for all."""

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only


def results(plan: Plan, cases: Sequence[Case] = CASES) -> Iterator[dict[str, Any]]:
    """Every comparison of the plan, as results.json holds them."""
    about = {"machine": machine(), "versions": versions(), "mode": "quick" if plan.quick else "full"}
    for case in cases:
        pairs = case.quick if plan.quick else case.pairs
        if pairs and plan.wants(case.name):
            start = time.perf_counter()
            yield from ({**found, **about} for found in _case(case, pairs, plan))
            print(f"{case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    if plan.wants("floor_7b"):
        yield {"case": "floor_7b", "against": "floor", **counted_only(*at_shape("Qwen2-7B")), **about, "pairs": PAIRS}


def _case(case: Case, pairs: int, plan: Plan) -> Iterator[dict[str, Any]]:
    peers = [peer for peer in case.against if peer_trl.installed() or peer not in TRL_SIDES]
    for peer in set(case.against) - set(peers):
        print(f"{case.name} against {peer}: left out, TRL is not installed", flush=True)
    work = case.work(pairs)
    found = interleaved([SIDES[name](work) for name in ("ours", *peers)], plan.rounds, case.epoch)
    peaks = {side: peak_mb(case.name, side) for side in ("ours", *peers)} if case.memory and not plan.quick else {}
    # Whose rounding a difference between two sides is, only the same arithmetic in fp64 can say.
    wrong = errors(case, ("ours", *peers)) if case.exact and not plan.quick else {}
    trees = (ours.together if work.grouped else ours.apart)(work.rows)
    floor = flops.floor(case.shape, trees, case.loss == "tdpo2")
    about = {"pairs": pairs, "micro_batch": pairs, "rounds": plan.rounds, "dtype": "float32"}
    for epoch in (False, True) if case.epoch else (False,):
        for peer in peers:
            named = {"case": case.name + ("_epoch" if epoch else ""), "against": peer}
            figures = comparison(found["ours"], found[peer], epoch, floor)
            if peaks and not epoch:
                figures |= {"ours_peak_mb": peaks["ours"], "theirs_peak_mb": peaks[peer], "memory_pairs": case.memory}
            if wrong and not epoch:
                figures |= {"ours_error": wrong["ours"], "theirs_error": wrong[peer], "exact_pairs": case.exact}
            yield {**named, **figures, **about}
    yield {"case": case.name, "against": "floor", **counted_only(found["ours"].flops(False), floor), **about}


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
