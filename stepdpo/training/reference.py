"""Where the reference's numbers come from: the cache, a second model, or the policy without its adapter.

Policy and reference usually are the same function when a run starts, so the cache is filled by the policy itself,
before its first update: no second model is loaded, and it cannot be the wrong one. Where the reference is another
model (`reference_model`), that one is loaded to fill the cache, and put away again.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepdpo.core.errors import UserError
from stepdpo.models.adapter_layers import adapter_off
from stepdpo.models.reference_cache import ReferenceScores, seal, verify, write_shards
from stepdpo.models.scorer import Scores
from stepdpo.models.scorer_spec import ScorerSpec
from stepdpo.runtime import artifact_cache
from stepdpo.runtime.processes import any_process
from stepdpo.runtime.progress import Progress
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.batch_sampler import BatchSize, all_micro_batches, micro_batches
from stepdpo.tokens.preprocess import TokenizedDataset
from stepdpo.tokens.token_store import TokenStore
from stepdpo.training.engine.settings import Engine

FORMAT = 2
CHECKED = 8
"""Pairs that are scored again whenever cached scores are used: enough to notice other weights, too few to wait for."""
ROOM = {True: (1e-4, 1e-5), False: (0.02, 5e-3)}
"""Whether scores are in fp32 -> how far a sum scored again may lie from the kept one: (nats a token, share of the sum).

Rounding grows with both. Set by hand, and no proven bounds: in bf16, of eight bits, the share is just above one
rounding (2^-8 = 0.0039); in fp32, of twenty-four, both lie far above (2^-24 = 6e-8), so that another order of adding
or another batch passes, and other weights as a rule do not.
"""
EVERY = 5.0
"""Seconds between two lines about how far the scoring is."""
Score = Callable[[TreeBatch], Scores]
"""Scorer.forward."""


class ReferenceMode(Enum):
    """Where the reference's scores come from. The result is the same."""

    cache = "cache"
    """Computed once, kept on disc, used by every run from the same weights on the same tokens."""
    online = "online"
    """By a second, frozen model in every update."""
    adapter_off = "adapter_off"
    """By the policy with its adapter switched off, in every update."""


class NoReference:
    """For losses that know none."""

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Nothing to prepare."""

    def attach_cached(self, batch: TreeBatch, name: str) -> TreeBatch:
        """The batch as it is."""
        return batch

    def attach_online(self, batch: TreeBatch) -> TreeBatch:
        """The batch as it is."""
        return batch


class CachedReference:
    """Scores from the cache, computed first where they are not there."""

    def __init__(
        self, engine: Engine, needs: frozenset[str], batch: BatchSize, key: Mapping[str, Any],
        build_reference: Callable[[], Score] | None = None,
    ) -> None:  # fmt: skip
        """`key`: what the scores depend on besides the tokens: the weights, the attention.

        `build_reference` loads the reference where it is not what the policy is now.
        """
        self.engine, self.batch, self.keep_hidden = engine, batch, "kl" in needs
        self.build_reference = build_reference
        self.score: Score = engine.score
        self.key = {
            **key, "format": FORMAT, "numbers": engine.dtype, "hidden": self.keep_hidden, "tokens": "steps" in needs
        }  # fmt: skip
        self.scores: dict[str, ReferenceScores] = {}

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Find or compute the scores of all pairs; every process calls this, before the first update."""
        if self.build_reference:
            self.score = self.build_reference()
        for name, trees in tokenized.named().items():
            if len(trees):
                self.scores[name] = self._scores_of(name, trees, tokenized.identity[name])
        self.score = self.engine.score  # lets go of a second model, which is needed no more

    def attach_cached(self, batch: TreeBatch, name: str) -> TreeBatch:
        """The batch with the reference's numbers; touches no engine."""
        return self.scores[name].attach(batch)

    def attach_online(self, batch: TreeBatch) -> TreeBatch:
        """Nothing is left to compute."""
        return batch

    def _scores_of(self, name: str, trees: TokenStore, identity: str) -> ReferenceScores:
        key = {**self.key, "data": identity}
        entry = artifact_cache.entry("reference", key)
        if self._usable(entry, trees, name):
            return ReferenceScores.of(entry, name)
        self._compute(entry, key, trees, name)
        if any_process(self.engine, not (entry / f"{name}.json").is_file()):
            raise UserError(
                f"the reference's scores are not to be seen by every process in {entry}: set {artifact_cache.HOME} to "
                "a folder that all machines share, or use reference=online"
            )
        return ReferenceScores.of(entry, name)

    def _usable(self, entry: Path, trees: TokenStore, name: str) -> bool:
        """Whether cached scores are there, whole, and what the model says now. Otherwise they are taken away."""
        if any_process(self.engine, not entry.is_dir()):
            return False
        problem = verify(entry, name, self.engine.rank, self.engine.world_size)
        if not any_process(self.engine, bool(problem)):
            problem = self._disagreement(ReferenceScores.of(entry, name), trees)
        if not any_process(self.engine, bool(problem)):
            if self.engine.rank == 0:
                print(f"reference: scores of {len(trees)} {name} pairs from {entry}", flush=True)
            return True
        if problem:
            print(f"warning: {entry}: {problem}; the reference's scores are made again", flush=True)
        self.engine.barrier()  # nobody reads what is about to go
        if self.engine.rank == 0:
            artifact_cache.discard(entry)
        self.engine.barrier()
        return False

    @torch.no_grad()
    def _disagreement(self, stored: ReferenceScores, trees: TokenStore) -> str:
        """Score a few pairs again, spread over all of them; every process the same ones."""
        places = np.unique(np.linspace(0, len(trees) - 1, CHECKED).astype(np.int64))
        (a_token, a_share), wrong = ROOM[self.engine.dtype == "float32"], False
        for micro_batch in micro_batches(trees, trees.ids[places].tolist(), self.batch.tokens, 0, 1):
            batch = stored.attach(micro_batch.batch)
            logps_R, kl_R, tokens_R = self.score(batch)[:3]
            assert batch.reference_logps_R is not None
            known_R = batch.reference_logps_R.to(logps_R.device)
            room_R = tokens_R * a_token + logps_R.abs() * a_share
            wrong |= bool((((logps_R - known_R).abs() > room_R) | (kl_R.abs() > room_R)).any())
        return "the model scores some pairs otherwise than they were kept" if wrong else ""

    def _compute(self, entry: Path, key: Mapping[str, Any], trees: TokenStore, name: str) -> None:
        """Score every pair with the model as it is now; every process writes its share, the main one publishes."""
        engine = self.engine
        share = all_micro_batches(trees, self.batch.tokens, engine.rank, engine.world_size, self.batch.group)
        with (
            artifact_cache.held(self._scratch(entry)) as scratch,
            Progress(f"scored {name} pair", len(trees), enabled=engine.rank == 0, every=EVERY) as progress,
        ):

            def score(batch: TreeBatch) -> Scores:
                found = self.score(batch)
                progress.advance(batch.pairs * engine.world_size)
                return found

            write_shards(score, engine.rank, share, trees, self.keep_hidden, scratch, name)
            engine.barrier()
            if engine.rank == 0:
                seal(scratch, name)
                artifact_cache.publish(scratch, entry, key)
                size = sum(path.stat().st_size for path in entry.iterdir())
                progress.say(f"reference: {len(trees)} {name} pairs scored, {size / 2**20:.1f} MiB in {entry}")
            engine.barrier()

    def _scratch(self, entry: Path) -> Path:
        """One for all processes: the main one draws its name, and a sum with the others' zeros hands it out."""
        own = [*os.urandom(6), *socket.gethostname().encode()[:64].ljust(64, b"\0")]
        drawn = self.engine.all_reduce_sum([float(byte) if self.engine.rank == 0 else 0.0 for byte in own])
        token, host = bytes(map(int, drawn[:6])), bytes(map(int, drawn[6:]))
        return artifact_cache.scratch_of(entry, host.rstrip(b"\0").decode(errors="replace"), token.hex())


class OnlineReference:
    """Scores by a model at hand, in every update."""

    def __init__(self, score: Score, keep_hidden: bool) -> None:
        self.score, self.keep_hidden = score, keep_hidden

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Nothing to prepare."""

    def attach_cached(self, batch: TreeBatch, name: str) -> TreeBatch:
        """Nothing is known before the update."""
        return batch

    @torch.no_grad()
    def attach_online(self, batch: TreeBatch) -> TreeBatch:
        """The batch with the reference's numbers; every process must call it equally often."""
        known = self.score(batch)
        return dataclasses.replace(
            batch,
            reference_logps_R=known.logps_R,
            reference_hidden_TH=known.hidden_TH if self.keep_hidden else None,
            reference_logps_T=known.logps_T,
        )


Reference = NoReference | CachedReference | OnlineReference


def open_reference(
    mode: ReferenceMode, engine: Engine, scorers: ScorerSpec, needs: frozenset[str], batch: BatchSize
) -> Reference:
    """The reference of a run; a second model stays loaded for `online` alone."""
    if "reference" not in needs:
        return NoReference()
    if mode is ReferenceMode.cache:
        another = scorers.reference is not None
        build = (lambda: engine.build_reference(scorers.build_reference)) if another else None
        return CachedReference(engine, needs, batch, scorers.reference_key(), build)
    if mode is ReferenceMode.online:
        return OnlineReference(engine.build_reference(scorers.build_reference), "kl" in needs)
    return OnlineReference(without_adapter(engine), "kl" in needs)


def without_adapter(engine: Engine) -> Score:
    """The policy's own scores with its adapter switched off."""

    def score(batch: TreeBatch) -> Scores:
        with adapter_off(engine.model):
            return engine.score(batch)

    return score
