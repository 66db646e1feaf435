"""`stepdpo train`: preferences in, a trained model out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stepdpo.core.errors import UserError
from stepdpo.data.templates import resolve
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.compatibility import refuse_sliding_window
from stepdpo.models.load import Pretrained
from stepdpo.models.logprobs import Keep
from stepdpo.models.lora import NoAdapter, adapter_off
from stepdpo.models.scorer import Gather, Scorer, head_of, logit_form
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.signals import StopSignals
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.batch_sampler import BatchSize
from stepdpo.tokens.preprocess import prepare
from stepdpo.tokens.tokenization import Lengths
from stepdpo.training.checkpointing import Keeper
from stepdpo.training.engine.settings import Build, pick_device
from stepdpo.training.loop import Loop, Window
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import Kept, Live, Mode, References
from stepdpo.training.step import Scoring


@dataclass(frozen=True)
class Training:
    """All settings of one training run; the parts are built from their own config groups."""

    algo: Any
    level: Any
    template: Any
    model: Any
    dataset: Any
    optim: AdamW
    engine: Any
    track: Any
    adapter: Any = field(default_factory=NoAdapter)
    reference: Mode = Mode.cache
    reference_model: Any = None
    """What the policy is held against: a folder or hub id, or a part of the group model; null: the policy's start."""
    head: Keep = Keep.auto
    batch: BatchSize = field(default_factory=BatchSize)
    lengths: Lengths = field(default_factory=Lengths)
    attention: Attention = Attention.auto
    epochs: int = 1
    max_steps: int | None = None
    """Stop after this many updates, whatever the epochs."""
    seed: int = 0
    log_every: int = 10
    eval_every: int = 50
    """Updates between looks at the held-out pairs; 0 looks only at the start and the end."""
    save_every: int = 100
    """Updates between checkpoints; 0 for none."""
    keep: int = 2
    """Checkpoints to keep."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.log_every < 1 or self.keep < 1:
            raise ValueError("epochs, log_every and keep must be at least 1")
        if self.reference is Mode.adapter_off and isinstance(self.adapter, NoAdapter):
            raise ValueError("reference=adapter_off needs an adapter to switch off: adapter=lora")
        if self.reference is Mode.adapter_off and self.reference_model is not None:
            raise ValueError("without its adapter the policy is its own start: reference_model needs cache or online")

    @property
    def other(self) -> Any:
        """The reference where it is not the policy's start."""
        named = self.reference_model
        return Pretrained(path=named) if isinstance(named, str) else named


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
        speaks = engine.rank == 0
        material = prepare(
            spec.dataset, spec.level, template, spec.algo.needs, tokenizer, spec.lengths, folder, speaks,
            makes=int(os.environ.get("LOCAL_RANK", "0")) == 0,
            any_failed=lambda failed: bool(engine.total(torch.tensor([float(failed)]))[0]),
        )  # fmt: skip
        if speaks and warning:
            print(f"warning: {warning}")
        keeper = Keeper(engine, folder, tokenizer, template, material.fingerprint, spec.keep)
        checkpoint = keeper.find() if resume else None
        references = _references(spec, engine, plain, attention)
        scoring = Scoring(engine, spec.algo, spec.batch.tokens, references, spec.batch.group)
        scoring.prepare(material)
        start, sums = keeper.load(checkpoint) if checkpoint else (0, {})
        loop = Loop(spec, material, scoring, keeper)
        kept = start if start else -1  # resumed without a checkpoint, every line is written again
        tracker = stack.enter_context(_tracker(spec, folder, engine.rank, kept if resume else None))
        progress = stack.enter_context(Progress(loop.total_steps, start, speaks))
        signals = stack.enter_context(StopSignals(engine))
        outcome = loop.run(start, Window(sums), signals, tracker, progress)
        keeper.save_model(folder / "model")
    return outcome


def _references(spec: Training, engine: Any, plain: Build, attention: str) -> References:
    """Where the reference's scores come from; a second model stays loaded for `online` alone."""
    needs = spec.algo.needs
    if "reference" not in needs:
        return Kept(engine, needs, spec.batch.tokens, {}, spec.batch.group)
    if spec.reference is Mode.cache:
        weights = (spec.other or spec.model).fingerprint()
        second = (lambda: engine.second(plain)) if spec.other else None
        key = {"weights": weights, "attention": attention}
        return Kept(engine, needs, spec.batch.tokens, key, spec.batch.group, second)
    if spec.reference is Mode.online:
        return Live(engine.second(plain), "kl" in needs)

    def without_adapter(batch: TreeBatch) -> Any:
        with adapter_off(engine.model):
            return engine.score(batch)

    return Live(without_adapter, "kl" in needs)


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
