"""Where the reference's numbers come from: the cache, a second model, or the policy without its adapter.

Policy and reference usually are the same function when a run starts, so the cache is filled by the policy itself,
before its first update: no second model is loaded, and it cannot be the wrong one. Where the reference is another
model (`reference_model`), that one is loaded to fill the cache, and put away again.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.reference_cache import ReferenceScores, seal, verify, write_shards
from stepdpo.runtime import artifact_cache as caches
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.batch_sampler import Group, MicroBatch, all_micro_batches, micro_batches
from stepdpo.tokens.preprocess import TokenizedDataset, Trees
from stepdpo.tokens.preprocess_worker import Pace

FORMAT = 1
CHECKED = 8
"""Pairs that are scored again whenever kept scores are used."""
Score = Callable[[TreeBatch], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Scorer.forward."""


class ReferenceMode(Enum):
    """Where the reference's scores come from. The result is the same."""

    cache = "cache"
    """Computed once, kept on disc, used by every run from the same weights on the same tokens."""
    online = "online"
    """By a second, frozen model in every update."""
    adapter_off = "adapter_off"
    """By the policy with its adapter switched off, in every update."""


@dataclass(frozen=True)
class _Other:
    """What scores for this process where it is not the policy."""

    rank: int
    score: Score


class CachedReference:
    """Scores from the cache, made first where they are not there."""

    def __init__(
        self, engine: Any, needs: frozenset[str], tokens: int, key: Mapping[str, Any], group: Group = Group.none,
        other: Callable[[], Score] | None = None,
    ) -> None:  # fmt: skip
        """`key`: what the scores depend on besides the tokens: the weights, the attention.

        `other` loads the reference where it is not what the policy is now.
        """
        self.engine, self.tokens, self.group, self.keep_hidden = engine, tokens, group, "kl" in needs
        self.other, self.scorer = other, engine
        self.key = {**key, "format": FORMAT, "numbers": engine.dtype, "hidden": self.keep_hidden}
        self.is_main_process = engine.rank == 0
        self.scores: dict[str, ReferenceScores] = {}

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Find or make the scores of all pairs; every process calls this, before the first update."""
        self.scorer = _Other(self.engine.rank, self.other()) if self.other else self.engine
        for name, trees in tokenized.named().items():
            if len(trees):
                self.scores[name] = self._of(name, trees, tokenized.identity[name])
        self.scorer = self.engine  # another model is needed no more

    def attach(self, batch: TreeBatch, name: str) -> TreeBatch:
        """The batch with the reference's numbers; touches no engine."""
        return self.scores[name].attach(batch)

    def live(self, batch: TreeBatch) -> TreeBatch:
        """Nothing is left to compute."""
        return batch

    def _of(self, name: str, trees: Trees, identity: str) -> ReferenceScores:
        key = {**self.key, "data": identity}
        entry = caches.entry("reference", key)
        if self._usable(entry, trees, name):
            return ReferenceScores.of(entry, name)
        self._make(entry, key, trees, name)
        if self._any(not (entry / f"{name}.json").is_file()):
            raise UserError(
                f"the reference's scores are not to be seen by every process in {entry}: set {caches.HOME} to a "
                "folder that all machines share, or use reference=online"
            )
        return ReferenceScores.of(entry, name)

    def _usable(self, entry: Path, trees: Trees, name: str) -> bool:
        """Whether kept scores are there, whole, and what the model says now. Otherwise they are taken away."""
        if self._any(not entry.is_dir()):
            return False
        problem = verify(entry, name, self.engine.rank, self.engine.world_size)
        if not self._any(bool(problem)):
            problem = self._disagreement(ReferenceScores.of(entry, name), trees)
        if not self._any(bool(problem)):
            if self.is_main_process:
                print(f"reference: scores of {len(trees)} {name} pairs from {entry}", flush=True)
            return True
        if problem:
            print(f"warning: {entry}: {problem}; the reference's scores are made again", flush=True)
        self.engine.barrier()
        if self.is_main_process:
            caches.discard(entry)
        self.engine.barrier()
        return False

    @torch.no_grad()
    def _disagreement(self, stored: ReferenceScores, trees: Trees) -> str:
        """Score a few pairs again, spread over all of them; every process the same ones."""
        places = np.unique(np.linspace(0, len(trees) - 1, CHECKED).astype(np.int64))
        loose, wrong = self.engine.dtype != "float32", False
        for micro_batch in micro_batches(trees, trees.ids[places].tolist(), self.tokens, 0, 1):
            batch = stored.attach(micro_batch.batch)
            logps_B2, kl_B2, tokens_B2, _ = self.scorer.score(batch)
            assert batch.reference_logps_B2 is not None
            known_B2 = batch.reference_logps_B2.to(logps_B2.device)
            room_B2 = tokens_B2 * (0.02 if loose else 1e-4) + logps_B2.abs() * (5e-3 if loose else 1e-5)
            wrong |= bool((((logps_B2 - known_B2).abs() > room_B2) | (kl_B2.abs() > room_B2)).any())
        return "the model scores some pairs otherwise than they were kept" if wrong else ""

    def _make(self, entry: Path, key: Mapping[str, Any], trees: Trees, name: str) -> None:
        ours = torch.tensor(
            [float(int.from_bytes(os.urandom(6))) if self.is_main_process else 0.0], dtype=torch.float64
        )
        scratch = entry.with_name(f".{entry.name}.{int(self.engine.all_reduce_sum(ours)[0]):x}.tmp")  # one name for all
        scratch.mkdir(parents=True, exist_ok=True)
        inputs = all_micro_batches(trees, self.tokens, self.engine.rank, self.engine.world_size, self.group)
        pace = Pace(f"reference: scoring {name}", len(trees), self.is_main_process)
        try:
            score, rank = self.scorer.score, self.engine.rank
            write_shards(score, self._paced(inputs, pace), trees, self.keep_hidden, scratch, name, rank)
        except BaseException:  # of no use to anyone else, and possibly large
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        self.engine.barrier()
        if self.is_main_process:
            seal(scratch, name)
            caches.publish(scratch, entry, key)
            size = sum(path.stat().st_size for path in entry.iterdir())
            print(f"reference: {len(trees)} {name} pairs scored, {size / 2**20:.1f} MiB in {entry}", flush=True)
        self.engine.barrier()

    def _paced(self, inputs: Iterator[MicroBatch], pace: Pace) -> Iterator[MicroBatch]:
        done = 0
        for micro_batch in inputs:
            yield micro_batch
            done += micro_batch.batch.pairs * self.engine.world_size
            pace.say(done)

    def _any(self, here: bool) -> bool:
        """Whether it is so on any process."""
        return bool(self.engine.all_reduce_sum(torch.tensor([float(here)]))[0])


class OnlineReference:
    """Scores by a model at hand, in every update."""

    def __init__(self, score: Score, keep_hidden: bool) -> None:
        self.score, self.keep_hidden = score, keep_hidden

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Nothing to prepare."""

    def attach(self, batch: TreeBatch, name: str) -> TreeBatch:
        """Nothing is known before the update."""
        return batch

    @torch.no_grad()
    def live(self, batch: TreeBatch) -> TreeBatch:
        """The batch with the reference's numbers; every process must call it equally often."""
        logps_B2, _, _, hidden_TH = self.score(batch)
        return dataclasses.replace(
            batch, reference_logps_B2=logps_B2, reference_hidden_TH=hidden_TH if self.keep_hidden else None
        )


Reference = CachedReference | OnlineReference
