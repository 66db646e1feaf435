"""The updates of one training run on one process."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from stepdpo.runtime.prefetch import Ahead
from stepdpo.runtime.signals import Interrupted, StopSignals
from stepdpo.tokens.batch_sampler import Updates
from stepdpo.tokens.preprocess import Material
from stepdpo.training.checkpointing import Keeper
from stepdpo.training.step import Scoring, Share

if TYPE_CHECKING:
    from stepdpo.runtime.progress import Progress
    from stepdpo.training.trainer import Training


class Diverged(Exception):
    """The loss or its gradient is not a finite number any more."""


class Loop:
    def __init__(self, spec: Training, material: Material, scoring: Scoring, keeper: Keeper) -> None:
        self.spec, self.material, self.scoring, self.keeper = spec, material, scoring, keeper
        self.engine = scoring.engine
        self.updates = Updates(material.train, spec.seed, spec.batch)
        self.per_epoch = self.updates.per_epoch
        self.total_steps = spec.epochs * self.per_epoch
        if spec.max_steps is not None:
            self.total_steps = min(self.total_steps, spec.max_steps)

    def run(
        self, start: int, window: Window, signals: StopSignals, tracker: Any, progress: Progress
    ) -> dict[str, float]:
        """Every update from `start`; returns the last held-out metrics, else the last of training."""
        with Ahead(self._share, self.total_steps) as ahead:  # no attribute: a circle would keep the engine alive
            return self._run(start, ahead, window, signals, tracker, progress)

    def _run(
        self, start: int, ahead: Ahead[Share], window: Window, signals: StopSignals, tracker: Any, progress: Progress
    ) -> dict[str, float]:
        spec = self.spec
        training: dict[str, float] = {}
        heldout: dict[str, float] = {}
        if start in (0, self.total_steps):
            heldout = self._look(start, None if start else tracker, progress)
        for step in range(start, self.total_steps):
            window.add(self._update(step, ahead))
            done, last = step + 1, step + 1 == self.total_steps
            progress.advance(window.latest)
            if done % spec.log_every == 0 or last:
                training = window.close(done / self.per_epoch)
                progress.note(done, training)
                if tracker:
                    tracker.log(training, done)
            if last or (spec.eval_every and done % spec.eval_every == 0):
                heldout = self._look(done, tracker, progress)
            stop = signals.agreed()
            if stop or (spec.save_every and done % spec.save_every == 0 and not last):
                self.keeper.save(done, window.sums)
            if stop:
                raise Interrupted(stop)
        return heldout or training

    def _share(self, step: int) -> Share:
        """What this process computes in an update; made in the background."""
        return self.scoring.share(self.material.train, self.updates(step), "train")

    def _update(self, step: int, ahead: Ahead[Share]) -> dict[str, float]:
        """One optimiser step; its metrics are means over the pairs of the whole update."""
        began = time.perf_counter()
        metrics = self.scoring.compute(ahead.take(step), learn=True)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"the loss of update {step + 1} is {metrics['loss']}; lower optim.lr, or look at the data")
        lr = self.spec.optim.lr_at(step, self.total_steps)
        norm = self.engine.step(lr)
        if not math.isfinite(norm):
            raise Diverged(f"the gradient's norm at update {step + 1} is {norm}; lower optim.lr, or look at the data")
        return {**metrics, "lr": lr, "grad_norm": norm, "seconds": time.perf_counter() - began}

    @torch.no_grad()
    def _look(self, done: int, tracker: Any, progress: Progress) -> dict[str, float]:
        """Metrics of the held-out pairs, nothing learnt."""
        heldout = self.material.heldout
        if not heldout:
            return {}
        metrics = self.scoring.passes(heldout, list(heldout), "heldout", learn=False)
        named = {f"heldout/{k}": v for k, v in metrics.items() if k not in ("tokens", "pairs")}
        progress.look(done, named)
        if tracker:
            tracker.log(named, done)
        return named


class Window:
    """Averages over the updates since the last line of the log, weighted by their pairs."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        """`sums`: of a run that is resumed, what it had added up since its last line."""
        self.sums: dict[str, float] = dict(sums or {})
        self.latest: dict[str, float] = {}

    def add(self, metrics: dict[str, float]) -> None:
        self.latest = metrics
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + (
                value if name in ("tokens", "pairs", "seconds") else value * metrics["pairs"]
            )

    def close(self, epoch: float) -> dict[str, float]:
        """The averages, and a new window."""
        pairs, tokens, seconds = (self.sums.pop(name) for name in ("pairs", "tokens", "seconds"))
        means = {name: value / pairs for name, value in self.sums.items()}
        means.update(lr=self.latest["lr"], grad_norm=self.latest["grad_norm"], epoch=epoch)
        means.update(tokens_per_second=tokens / seconds, pairs_per_second=pairs / seconds)
        self.sums = {}
        return means
