"""One CUDA device in bf16: tokens a second, model FLOPs utilisation, peak memory, and TRL: `make bench-gpu`.

Weights are in bf16 on both sides. A step is forward, loss and backward with the reference at hand where a side keeps
it. Tokens are distinct tokens, for every side. Utilisation is the operations that cannot be left out (flops.floor)
over the median seconds and the device's dense bf16 peak: recomputed and padded work earns nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import flops, ours, peer_trl, rows
from benchmarks.cases import SIDES, TITLES
from benchmarks.machine import versions
from benchmarks.shapes import QWEN2_1_5B, QWEN2_HALF_B, Shape
from benchmarks.sides import Work

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""Dense bf16 operations a second by a part of the device's name; the first that fits counts."""
PAIRS, WARM, ROUNDS = 16, 2, 7
RESULTS = Path(__file__).parent / "gpu.json"


def peak_of(name: str) -> float | None:
    """Operations a second of a device; None for one that is not listed."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def utilisation(model_flops: int, seconds: float, peak: float | None) -> float | None:
    """Share of the device's peak that went into operations that had to be done."""
    return model_flops / seconds / peak if peak is not None else None


def run(work: Work, side: str, peak: float | None, warm: int = WARM, rounds: int = ROUNDS) -> dict[str, Any]:
    """One side of one work, alone on the device. A side that fails is reported as such, and the others go on."""
    about = {"shape": work.shape.name, "loss": work.loss, "side": side, "pairs": len(work.rows)}
    try:
        seconds, memory, value = _timed(work, side, warm, rounds)
    except torch.OutOfMemoryError:
        failure = "out of memory"
    except Exception as error:  # of a library or a driver: told, not hidden
        failure = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
    else:
        return {**about, **_figures(work, seconds, peak), "peak_gb": memory, "loss_value": value}
    _clear(work.device)
    return {**about, "error": failure}


def _figures(work: Work, seconds: list[float], peak: float | None) -> dict[str, Any]:
    trees = ours.apart(work.rows)
    tokens = sum(len(tree) for tree in trees)
    needed = flops.floor(work.shape, trees, work.loss == "tdpo2")
    return {
        "seconds": median(seconds),
        "rounds_s": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / median(seconds),
        "mfu": utilisation(needed, median(seconds), peak),
    }


def _timed(work: Work, name: str, warm: int, rounds: int) -> tuple[list[float], float | None, float]:
    """(seconds of every round, gigabytes at the peak with models and gradients, the loss)."""
    on_gpu = work.device != "cpu"
    _clear(work.device)
    side = SIDES[name](work)
    seconds, value = [], float("nan")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    # The first rounds compile and fill caches, on every side; they are run and not counted.
    for number in range(warm + rounds):
        side.model.zero_grad(set_to_none=True)
        _wait(on_gpu)  # kernels run on after the call that started them
        start = time.perf_counter()
        loss = side.step()
        _wait(on_gpu)
        if number >= warm:
            seconds.append(time.perf_counter() - start)
        value = float(loss)
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None, value


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def _clear(device: str) -> None:
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown; ratios are theirs over ours."""
    lines = ["| shape | loss | side | ms | tokens/s | MFU | peak GiB | ratio |", "|---|---|---|---|---|---|---|---|"]
    base = {(r["shape"], r["loss"]): r["seconds"] for r in found if r["side"] == "ours" and "seconds" in r}
    for r in found:
        name = "stepdpo" if r["side"] == "ours" else TITLES[r["side"]]
        start = f"| {r['shape']} | {r['loss']} | {name} |"
        if "error" in r:
            lines.append(f"{start} {r['error']} | | | | |")
            continue
        mfu = "unknown peak" if r["mfu"] is None else f"{100 * r['mfu']:.1f} %"
        memory = "" if r["peak_gb"] is None else f"{r['peak_gb']:.1f}"
        own = base.get((r["shape"], r["loss"]))
        ratio = "" if own is None else f"{r['seconds'] / own:.2f}x"
        cells = (f"{1000 * r['seconds']:.1f}", f"{r['tokens_per_second']:.0f}", mfu, memory, ratio)
        lines.append(f"{start} {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def everything(shapes: Sequence[Shape], pairs: int, device: str, peak: float | None) -> Iterator[dict[str, Any]]:
    """Both losses at every shape, stepdpo and whoever else can."""
    for shape in shapes:
        drawn = rows.step_rows(rows.uniform(pairs), shape.vocab)
        for loss, peers in (("dpo", ("trl", "trl_best")), ("tdpo2", ("classical",))):
            work = Work(shape, drawn, loss, dtype=torch.bfloat16, device=device)
            present = [p for p in peers if p == "classical" or peer_trl.installed()]
            yield from (run(work, side, peak) for side in ("ours", *present))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of the micro-batch")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return 0
    warnings.simplefilter("ignore")
    name = torch.cuda.get_device_name()
    found = []
    for one in everything((QWEN2_HALF_B, QWEN2_1_5B), chosen.pairs, "cuda", peak_of(name)):
        found.append(one)
        print({key: one[key] for key in one if key != "rounds_s"}, flush=True)
        RESULTS.write_text(json.dumps({"device": name, "versions": versions(), "results": found}, indent=1) + "\n")
    print(f"{name}, {versions()}\n{chosen.pairs} pairs in a micro-batch, bf16\n\n{table(found)}written: {RESULTS}")
    if not peer_trl.installed():
        print("TRL is not installed: left out")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
