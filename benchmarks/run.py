"""All cases, one after another; what is known is written after every case."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import flops, ours, peer_trl
from benchmarks.cases import CASES, Case
from benchmarks.counting import at_shape
from benchmarks.machine import machine, versions
from benchmarks.measure import measured, result
from benchmarks.memory import peak_mb

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


def results(plan: Plan) -> Iterator[dict[str, Any]]:
    """Every comparison of the plan, as results.json holds them."""
    about = {"machine": machine(), "versions": versions(), "mode": "quick" if plan.quick else "full"}
    for case in CASES:
        pairs = case.quick if plan.quick else case.pairs
        if pairs and plan.wants(case.name):
            start = time.perf_counter()
            yield from ({**found, **about} for found in _case(case, pairs, plan))
            print(f"{case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    if plan.wants("floor_7b"):
        yield {**_counted("floor_7b", *at_shape("Qwen2-7B")), **about}


def _case(case: Case, pairs: int, plan: Plan) -> Iterator[dict[str, Any]]:
    peers = [peer for peer in case.against if peer_trl.installed() or peer not in TRL_SIDES]
    for peer in set(case.against) - set(peers):
        print(f"{case.name} against {peer}: left out, TRL is not installed", flush=True)
    work = case.work(pairs)
    found = measured(work, ["ours", *peers], plan.rounds, case.epoch)
    floor = flops.floor(case.shape, (ours.together if work.grouped else ours.apart)(work.rows), case.loss == "tdpo2")
    about = {"pairs": pairs, "micro_batch": pairs, "rounds": plan.rounds, "dtype": "float32"}
    peaks = _peaks(case, peers, plan)
    for peer in peers:
        found_one = result(case, "step", found["ours"], found[peer], peer, floor)
        yield {**found_one, **about, **_memory(case, peaks, peer)}
    if case.epoch:
        for peer in peers:
            yield {**result(case, "epoch", found["ours"], found[peer], peer, floor), **about}
    yield {**_counted(case.name, found["ours"].flops, floor), **about}


def _peaks(case: Case, peers: Sequence[str], plan: Plan) -> dict[str, float | None]:
    if not case.memory or plan.quick:
        return {}
    return {side: peak_mb(case.name, side) for side in ("ours", *peers)}


def _memory(case: Case, peaks: dict[str, float | None], peer: str) -> dict[str, Any]:
    return {"ours_peak_mb": peaks.get("ours"), "theirs_peak_mb": peaks.get(peer), "memory_pairs": case.memory or None}


def _counted(case: str, operations: int, floor: int) -> dict[str, Any]:
    """A comparison with the floor: counted, not timed."""
    nothing = dict.fromkeys(
        ("ours_s", "theirs_s", "ratio", "ours_peak_mb", "theirs_peak_mb", "loss_diff"),
    )
    return {
        "case": case,
        "against": "floor",
        **nothing,
        "ours_flops": operations,
        "theirs_flops": floor,
        "flops_ratio": floor / operations,
        "floor_ratio": operations / floor,
    }


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
