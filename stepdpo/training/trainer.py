"""`stepdpo train`: preferences in, a trained model out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from stepdpo.core.errors import UserError
from stepdpo.data.templates import resolve
from stepdpo.models.attention.registry import register
from stepdpo.models.compatibility import refuse_sliding_window
from stepdpo.models.lora import adapter_off
from stepdpo.models.scorer import Gather, Scorer, head_of, logit_form
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.signals import StopSignals
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.preprocess import prepare
from stepdpo.training.checkpointing import Checkpointer
from stepdpo.training.config import Training
from stepdpo.training.engine.settings import Build, pick_device
from stepdpo.training.loop import Loop, MetricWindow
from stepdpo.training.reference import CachedReference, OnlineReference, Reference, ReferenceMode
from stepdpo.training.step import TrainStep


def train(spec: Training, folder: Path, resume: bool = False) -> dict[str, float]:
    """Train and write `metrics.jsonl`, `checkpoints/` and `model/` into the run folder.

    Returns the last held-out metrics (else the last of training). Raises UserError for bad input, Diverged when a
    loss is not finite, Interrupted after a signal and a clean save.
    """
    attention = register(spec.attention, pick_device(spec.engine.device))
    tokenizer = spec.model.tokenizer()
    template, warning = resolve(spec.template, spec.model.source)
    other = spec.other if "reference" in spec.algo.needs else None
    if other is not None and other.tokenizer().get_vocab() != tokenizer.get_vocab():
        raise UserError(f"reference_model: {other.source!r} has other tokens than the model")

    def plain(dtype: torch.dtype, gather: Gather) -> Scorer:
        model = (other or spec.model).model(attention, dtype)
        refuse_sliding_window(model.config, spec.lengths.max_length)
        return Scorer(model, False, gather, spec.head)

    def build(dtype: torch.dtype, gather: Gather) -> Scorer:
        model = spec.model.model(attention, dtype)
        refuse_sliding_window(model.config, spec.lengths.max_length)
        with_kl = "kl" in spec.algo.needs
        head_VH = _head_of(other.model(attention, dtype), model, gather) if with_kl and other else None
        return Scorer(spec.adapter.attach(model), with_kl, gather, spec.head, head_VH)

    with ExitStack() as stack:
        engine = stack.enter_context(spec.engine.open(build, spec.optim))
        is_main_process = engine.rank == 0
        tokenized = prepare(
            spec.dataset, spec.level, template, spec.algo.needs, tokenizer, spec.lengths, folder, is_main_process,
            makes=int(os.environ.get("LOCAL_RANK", "0")) == 0,
            any_failed=lambda failed: bool(engine.all_reduce_sum(torch.tensor([float(failed)]))[0]),
        )  # fmt: skip
        if is_main_process and warning:
            print(f"warning: {warning}")
        checkpointer = Checkpointer(engine, folder, tokenizer, template, tokenized.fingerprint, spec.keep)
        checkpoint = checkpointer.find() if resume else None
        reference = _references(spec, engine, plain, attention)
        train_step = TrainStep(engine, spec.algo, spec.batch.tokens, reference, spec.batch.group)
        train_step.prepare(tokenized)
        start, sums = checkpointer.load(checkpoint) if checkpoint else (0, {})
        loop = Loop(spec, tokenized, train_step, checkpointer)
        kept = start if start else -1  # resumed without a checkpoint, every line is written again
        tracker = stack.enter_context(_tracker(spec, folder, engine.rank, kept if resume else None))
        progress = stack.enter_context(Progress(loop.total_steps, start, is_main_process))
        signals = stack.enter_context(StopSignals(engine))
        outcome = loop.run(start, MetricWindow(sums), signals, tracker, progress)
        checkpointer.save_model(folder / "model")
    return outcome


def _references(spec: Training, engine: Any, plain: Build, attention: str) -> Reference:
    """Where the reference's scores come from; a second model stays loaded for `online` alone."""
    needs = spec.algo.needs
    if "reference" not in needs:
        return CachedReference(engine, needs, spec.batch.tokens, {}, spec.batch.group)
    if spec.reference is ReferenceMode.cache:
        weights = (spec.other or spec.model).fingerprint()
        second = (lambda: engine.build_reference(plain)) if spec.other else None
        key = {"weights": weights, "attention": attention}
        return CachedReference(engine, needs, spec.batch.tokens, key, spec.batch.group, second)
    if spec.reference is ReferenceMode.online:
        return OnlineReference(engine.build_reference(plain), "kl" in needs)

    def without_adapter(batch: TreeBatch) -> Any:
        with adapter_off(engine.model):
            return engine.score(batch)

    return OnlineReference(without_adapter, "kl" in needs)


def _head_of(other: Any, model: Any, gather: Gather) -> torch.Tensor:
    """The head of a reference that is another model; UserError where the policy's logits are not made as its are."""
    if logit_form(other.config) != logit_form(model.config):
        raise UserError("reference_model: its logits are scaled or capped otherwise than the model's, so no KL")
    return head_of(other, gather)


@contextmanager
def _tracker(spec: Training, folder: Path, rank: int, resumed: int | None) -> Iterator[Any]:
    """The tracker of process 0; the others log nothing."""
    if rank != 0:
        yield None
        return
    from omegaconf import OmegaConf

    path = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else {}
    with spec.track.open(folder, folder.name, config, resumed) as tracker:
        yield tracker
