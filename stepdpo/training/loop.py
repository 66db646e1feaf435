"""The optimizer steps of one training run on one process."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch

from stepdpo.core.protocols import Tracker
from stepdpo.runtime.prefetch import Prefetcher
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.signals import Interrupted, StopSignals
from stepdpo.tokens.batch_sampler import BatchSampler
from stepdpo.tokens.preprocess import TokenizedDataset
from stepdpo.training.checkpointing import Checkpointer
from stepdpo.training.config import Training
from stepdpo.training.step import StepInputs, TrainStep
from stepdpo.training.watch import Drifted, Watch


class Diverged(Exception):
    """The loss or its gradient is not a finite number any more."""


class Loop:
    """All steps from where a run stands to its end: update, log, evaluate held-out pairs, save, stop when asked to."""

    def __init__(
        self, spec: Training, tokenized: TokenizedDataset, train_step: TrainStep, checkpointer: Checkpointer,
        tracker: Tracker, watch: Watch,
    ) -> None:  # fmt: skip
        self.spec, self.tokenized, self.train_step = spec, tokenized, train_step
        self.checkpointer, self.tracker, self.watch = checkpointer, tracker, watch
        self.engine = train_step.engine
        self.batch_sampler = BatchSampler(tokenized.train, spec.seed, spec.batch)
        self.per_epoch = self.batch_sampler.per_epoch
        self.total_steps = spec.epochs * self.per_epoch
        if spec.max_steps is not None:
            self.total_steps = min(self.total_steps, spec.max_steps)

    def run(self, start: int, window: MetricWindow, progress: Progress, signals: StopSignals) -> dict[str, float]:
        """Every step from `start`; returns the last held-out metrics, else the last of training."""
        with Prefetcher(self._inputs, self.total_steps) as prefetcher:  # no attribute: a cycle would keep the engine
            return self._run(start, window, prefetcher, progress, signals)

    def _run(
        self, start: int, window: MetricWindow, prefetcher: Prefetcher[StepInputs], progress: Progress,
        signals: StopSignals,
    ) -> dict[str, float]:  # fmt: skip
        spec = self.spec
        self.say = progress.say
        training: dict[str, float] = {}
        heldout: dict[str, float] = {}
        if start in (0, self.total_steps):
            heldout = self._evaluate(start, progress, logged=start == 0)
        if start == 0:
            self.watch.sample(0, progress.say)
        for step in range(start, self.total_steps):
            try:
                window.add(self._update(step, prefetcher))
            except Drifted:
                self.checkpointer.save(step, window.sums)  # the update that was looked at is not made
                raise
            except Exception as error:
                error.add_note(f"update {step + 1}")
                raise
            done, last = step + 1, step + 1 == self.total_steps
            progress.advance(1, _figures(window.latest))
            if done % spec.log_every == 0 or last:
                training = window.close(done / self.per_epoch)
                progress.line(_figures(training))
                self.tracker.log(training, done)
            if last or (spec.eval_every and done % spec.eval_every == 0):
                heldout = self._evaluate(done, progress)
            self._sample(done, window, progress)
            stop = signals.agreed()
            if stop or (spec.save_every and done % spec.save_every == 0 and not last):
                self.checkpointer.save(done, window.sums)
            if stop:
                raise Interrupted(stop)
        self.watch.end(progress.say)
        return heldout or training

    def _inputs(self, step: int) -> StepInputs:
        """What this process computes in a step; made in the background."""
        return self.train_step.inputs(self.tokenized.train, self.batch_sampler(step), "train")

    def _update(self, step: int, prefetcher: Prefetcher[StepInputs]) -> dict[str, float]:
        """One optimizer step; its metrics are means over the pairs of the whole step."""
        began = time.perf_counter()
        metrics = self.train_step.compute(prefetcher.take(step), learn=True)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"the loss of update {step + 1} is {metrics['loss']}; lower optim.lr, or look at the data")
        self.watch.look(metrics, step + 1, self.say)
        lr = self.spec.optim.lr_at(step, self.total_steps)
        norm = self.engine.step(lr)
        if not math.isfinite(norm):
            raise Diverged(f"the gradient's norm at update {step + 1} is {norm}; lower optim.lr, or look at the data")
        return {**metrics, "lr": lr, "grad_norm": norm, "seconds": time.perf_counter() - began}

    def _sample(self, done: int, window: MetricWindow, progress: Progress) -> None:
        """Let the guard ask the policy, where it is to."""
        try:
            self.watch.sample(done, progress.say)
        except Drifted:
            self.checkpointer.save(done, window.sums)
            raise

    @torch.no_grad()
    def _evaluate(self, done: int, progress: Progress, logged: bool = True) -> dict[str, float]:
        """Metrics of the held-out pairs, nothing learnt; `logged` unless they are in the log already."""
        heldout = self.tokenized.heldout
        if not heldout:
            return {}
        metrics = self.train_step.evaluate(heldout, list(heldout), "heldout")
        progress.say(f"held-out after {done}  {_figures(metrics)}")
        named = {f"heldout/{k}": v for k, v in metrics.items() if k not in ("tokens", "pairs")}
        if logged:
            self.tracker.log(named, done)
        return named


class MetricWindow:
    """Averages over the steps since the last line of the log, weighted by their pairs."""

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


def _figures(metrics: Mapping[str, float]) -> str:
    """What a person wants to see of a step."""
    words = [f"loss {metrics['loss']:.4f}"]
    if "rewards/margins" in metrics:
        words.append(f"margin {metrics['rewards/margins']:+.3f}")
        words.append(f"accuracy {metrics['rewards/accuracies']:.3f}")
    if "tokens_per_second" in metrics:
        words.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    elif "seconds" in metrics:
        words.append(f"{metrics['tokens'] / metrics['seconds']:,.0f} tokens/s")
    return "  ".join(words)
