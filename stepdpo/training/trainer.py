"""`stepdpo train`: preferences in, a trained model out."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path

import torch

from stepdpo.core.errors import UserError, nearest
from stepdpo.data.level import Prefix, Step
from stepdpo.data.template_card import date_of, resolve
from stepdpo.models.attention.registry import register
from stepdpo.models.base_files import read_base
from stepdpo.models.lora import start_of
from stepdpo.models.scorer_spec import ScorerSpec
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.run_folder import DATA, METRICS, whole_lines
from stepdpo.runtime.signals import StopSignals
from stepdpo.runtime.tracking import open_tracker
from stepdpo.tokens.pair_scores import APART, NEEDS, RESTS_ON, LengthNormalised, Loss
from stepdpo.tokens.preprocess import prepare
from stepdpo.tokens.step_scores import HasValueHead, StepLoss, ValueHeadSpec
from stepdpo.training.answer_sample import answer_sample
from stepdpo.training.checkpointing import Checkpointer
from stepdpo.training.config import Training
from stepdpo.training.engine.settings import pick_device, pick_dtype
from stepdpo.training.loop import Loop, MetricWindow
from stepdpo.training.reference import ReferenceMode, open_reference
from stepdpo.training.step import TrainStep
from stepdpo.training.watch import Watch


def train(spec: Training, folder: Path, resume: bool = False) -> dict[str, float]:
    """Train and write `metrics.jsonl`, `checkpoints/` and `model/` into the run folder.

    Returns the last held-out metrics (else the last of training). Raises UserError for bad input, Diverged when a
    loss is not finite, Drifted when the guard stops it, Interrupted after a signal and a clean save.
    """
    _check_needs(spec.algo.needs)
    scorers = _scorer_spec(spec)
    tokenizer = scorers.tokenizer()
    odd_start = scorers.start_doubt()
    template, warning = resolve(spec.template, spec.model.source, tokenizer, started_on(folder))
    with ExitStack() as stack:
        engine = stack.enter_context(spec.engine.open(scorers.build_policy, spec.optim))
        tokenized = prepare(
            spec.dataset, spec.level, template, spec.algo.needs, tokenizer, spec.lengths, folder, engine
        )
        for doubt in filter(None, (warning, odd_start, _scored_prefix(spec))) if engine.rank == 0 else ():
            print(f"warning: {doubt}")
        if (day := date_of(template)) and engine.rank == 0:
            print(f"the chat template writes the date: {day} (kept with the model)")
        base = read_base(spec.model.folder())
        checkpointer = Checkpointer(
            engine, folder, tokenizer, template, tokenized.fingerprint, spec.keep, base, spec.save_dtype,
            _value_head(spec.algo), scorers.base_told(), scorers.merged_into(),
            scorers.not_in_state(),
        )  # fmt: skip
        checkpointer.tidy()
        checkpoint = checkpointer.find() if resume else None
        reference = open_reference(spec.reference, engine, scorers, spec.algo.needs, spec.batch)
        train_step = TrainStep(engine, spec.algo, spec.batch, reference)
        train_step.prepare(tokenized)  # before a checkpoint is loaded: the policy is its own reference until then
        start, sums = checkpointer.load(checkpoint) if checkpoint else (0, {})
        if engine.rank == 0:  # not before the checkpoint's data are known to be these
            write_json(folder / DATA, tokenized.facts)
        logged = start or -1  # resumed without a checkpoint, every line is written again
        tracker = stack.enter_context(open_tracker(spec.track, folder, engine.rank, logged if resume else None))
        watch = Watch(
            spec, tracker, whole_lines(folder / METRICS) if start else (),
            answer_sample(spec, template, tokenizer, checkpointer.save_model, folder),
        )  # fmt: skip
        loop = Loop(spec, tokenized, train_step, checkpointer, tracker, watch)
        progress = stack.enter_context(
            Progress("update", loop.total_steps, start, enabled=engine.rank == 0, every=math.inf, transient=False)
        )
        signals = stack.enter_context(StopSignals(engine))  # to the end: saving the model must not be torn either
        outcome = loop.run(start, MetricWindow(sums), progress, signals)
        if spec.save_every:  # else a disc without room for the model would cost all since the last checkpoint
            checkpointer.save(loop.total_steps, {}, surplus=True)
        checkpointer.save_model(folder / "model")
    return outcome


def _check_needs(needs: frozenset[str]) -> None:
    """A misspelt word, or one without another that it rests on, would train on without what it asks for."""
    for word in sorted(needs - NEEDS):
        raise UserError(f"algo: its `needs` names {word!r}, which nothing provides; {nearest(word, NEEDS)}")
    for word in sorted(needs):
        if RESTS_ON.get(word, word) not in needs:
            raise UserError(
                f"algo: its `needs` names {word!r} without {RESTS_ON[word]!r}, which that rests on: name both"
            )
    for one, other in APART:
        if {one, other} <= needs:
            raise UserError(f"algo: its `needs` names {one!r} and {other!r}, which do not go together")


def _scored_prefix(spec: Training) -> str:
    """What is odd about scoring the steps before a step, for a loss that divides by the number of scored tokens.

    At level=instance it is no oddity: the papers take their means over whole responses.
    """
    normalised = isinstance(spec.algo, LengthNormalised) and spec.algo.length_normalised
    if normalised and isinstance(spec.level, Step) and spec.level.prefix is Prefix.response:
        return (
            "algo takes a mean over scored tokens, and level.prefix=response has the shared steps scored too: the more "
            "of them there are, the less the step itself counts; level.prefix=prompt only reads them"
        )
    return ""


def _value_head(algo: Loss | StepLoss) -> ValueHeadSpec | None:
    if "values" not in algo.needs:
        return None
    if not isinstance(algo, HasValueHead):
        raise UserError("algo: its `needs` names 'values', so it must say by `value_head` which head it trains")
    return algo.value_head


def _scorer_spec(spec: Training) -> ScorerSpec:
    """The models of a run, none of them loaded."""
    device = pick_device(spec.engine.device, int(os.environ.get("LOCAL_RANK", "0")))
    return ScorerSpec(
        policy=spec.model,
        reference=spec.reference_spec if "reference" in spec.algo.needs else None,
        adapter=spec.adapter,
        attention=register(spec.attention, device),
        max_length=spec.lengths.max_length,
        head_memory=spec.head,
        with_kl="kl" in spec.algo.needs,
        computed=getattr(torch, pick_dtype(spec.engine.dtype, device).value),
        device=device,
        with_collision="collision" in spec.algo.needs,
        value_head=_value_head(spec.algo),
        holds_start=spec.reference is ReferenceMode.adapter_off and bool(start_of(spec.adapter)),
    )
