"""A stream of a million pairs: time to the first step, memory while it runs. `make bench-stream`.

python -m benchmarks.stream                     tokens written by the real writer, then `stepdpo train`
python -m benchmarks.stream --text 50000        from text: read, tokenised, cached, trained; then again from the cache
python -m benchmarks.stream --algo dpo          with a reference: every pair is scored first; then again from the cache
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.core.config import build, config_folders
from stepdpo.core.package_data import conf
from stepdpo.core.types import Preference
from stepdpo.data.preference_file import write_preferences
from stepdpo.data.template_card import resolve
from stepdpo.runtime import artifact_cache
from stepdpo.tinymath.problems import problems
from stepdpo.tokens.batch_sampler import BatchSampler, BatchSize, Group, MicroBatch, micro_batches
from stepdpo.tokens.fingerprint import cache_key, data_identity
from stepdpo.tokens.preprocess_worker import PreprocessReport, write_report, write_stores
from stepdpo.tokens.token_store import TokenStore, open_store

HERE = Path(__file__).parent
SETTLED, SHOWN = 200, 50
"""Steps after which memory should have settled; steps between two lines."""
TINY = (
    "model=fresh", "model.hidden_size=32", "model.layers=1", "model.heads=2", "model.key_value_heads=1",
    "model.intermediate_size=64", "engine=local", "engine.device=cpu", "log_every=1", "save_every=0", "eval_every=0",
    "epochs=1", "~recipe", "template=alpaca",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--text", type=int, default=0, help="so many pairs from text instead")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--update", type=int, default=8, help="pairs an update")
    parser.add_argument("--algo", default="reference_free", help="any option of algo=")
    parser.add_argument("--group", choices=["none", "problem"], default="none")
    options = parser.parse_args()
    words = [*TINY, f"max_steps={options.steps}", f"batch.pairs={options.update}", f"batch.group={options.group}"]
    words.append(f"algo={options.algo}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[artifact_cache.HOME] = f"{folder}/home"
        if options.text:
            path = Path(folder) / "preferences.jsonl"
            write_preferences(_texts(options.text), path)
            words += ["dataset=jsonl", f"dataset.path={path}"]
            _report(words, Path(folder), "cold")
        else:
            words += ["dataset=synthetic", f"dataset.pairs={options.pairs}"]
            _write(words)
            if options.algo != "reference_free":
                _report(words, Path(folder), "cold")
        _report(words, Path(folder), "warm")


def _texts(count: int) -> Iterator[Preference]:
    """Step pairs about generated problems: a right last step, and the same with something after it."""
    for number, problem in enumerate(problems("preference", count)):
        step = problem.solution.splitlines()[-1]
        before = problem.solution[: -len(step)]
        yield Preference(problem.question, before, step, f"{step} {number}")


def _write(words: Sequence[str]) -> None:
    """The entry that a training with these words will look for."""
    with initialize_config_dir(str(conf()), version_base="1.3"):
        search = [f"hydra.searchpath=[file://{HERE / 'stream_conf'}]", "track=none"]
        config: Any = OmegaConf.to_container(compose("train", overrides=[*words, *search]), resolve=True)
    with config_folders([HERE / "stream_conf"]):
        spec = build({name: value for name, value in config.items() if name not in LAUNCH_KEYS})
    tokenizer = spec.model.tokenizer()
    template, _ = resolve(spec.template, spec.model.source)
    data, _ = data_identity(spec.dataset)
    key = cache_key(data, spec.level, template, tokenizer, spec.lengths, spec.algo.needs)
    began = time.monotonic()
    with artifact_cache.building(entry := artifact_cache.entry("tokens", key), key) as folder:
        stores = write_stores(folder, {"train": spec.dataset.rows(len(tokenizer))})
        write_report(folder, PreprocessReport({"rows": spec.dataset.pairs}, (), spec.dataset.pairs, {}, stores, ""))
    seconds = time.monotonic() - began
    size = sum(path.stat().st_size for path in entry.iterdir())
    print(f"wrote {spec.dataset.pairs:,} pairs, {size / 2**30:.2f} GiB, in {seconds:.0f} s", flush=True)
    _prepare(entry)


def _prepare(entry: Path, updates: int = 20) -> None:
    """CPU time of what the prefetcher does for an update of 128 pairs: read, build trees, pack, collate."""
    store = open_store(entry, "train")
    for group in Group:
        size = BatchSize(pairs=128, tokens=8192, group=group)
        ids_of = BatchSampler(store, 0, size)
        # This thread's CPU time: training has a thread for it, and other work on the machine is not counted.
        began = time.thread_time()
        ids_of(0)  # orders the whole epoch, which is timed apart
        ordered = time.thread_time()
        count = sum(
            one.batch.input_ids_RL.numel() for n in range(updates) for one in _micro_batches(store, ids_of(n), size)
        )
        spent = 1000 * (time.thread_time() - ordered) / updates
        print(
            f"group={group.value}: an epoch ordered in {1000 * (ordered - began):.0f} ms; an update of 128 pairs, "
            f"{count / updates:,.0f} tokens, prepared in {spent:.1f} ms of CPU",
            flush=True,
        )


def _micro_batches(store: TokenStore, ids: list[int], size: BatchSize) -> Iterator[MicroBatch]:
    return micro_batches(store, ids, size.tokens, rank=0, world_size=1, group=size.group)


def _report(words: Sequence[str], folder: Path, name: str) -> None:
    lines = folder / f"{name}.jsonl"
    ours = ["--config-dir", str(HERE / "stream_conf"), "track=memory", f"track.path={lines}"]
    command = [sys.executable, "-m", "stepdpo", "train", *ours, *words, f"run={name}", f"runs={folder}/runs"]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    began = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    said = [line for line in done.stdout.splitlines() if line.startswith(("data:", "training on", "tokenised"))]
    print("\n".join(said))
    log = [json.loads(line) for line in lines.read_text().splitlines()]
    steps = np.array([line["step"] for line in log])
    memory = np.array([line["rss"] for line in log]) / 2**20
    print(f"{name}: first step after {log[0]['time'] - began:.1f} s")
    for step, rss in zip(steps[::SHOWN], memory[::SHOWN], strict=True):
        print(f"  step {step:>5}  {rss:8.1f} MiB")
    # By a line through the steps after the first ones, in which allocators and caches still fill.
    settled = steps > SETTLED
    if settled.sum() > 2:
        slope = 100 * np.polyfit(steps[settled], memory[settled], 1)[0]
        pairs = sum(line["pairs_per_second"] for line in log) / len(log)
        print(f"{name}: {slope:+.3f} MiB per 100 steps after step {SETTLED}; {pairs:.0f} pairs/s in the steps")


if __name__ == "__main__":
    main()
